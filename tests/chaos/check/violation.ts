/** What the checker can find: each says what is wrong with the operation, event, user, process or file. */
export const rules = {
  lost: 'was acknowledged and is not in gateway’s database',
  'two operations': 'is one idempotency key for two operations',
  'another key': 'is stored with another user or idempotency key than it was submitted with',
  altered: 'is not what was submitted',
  'refused and stored': 'was refused and exists',
  'never submitted': 'exists and nobody submitted it',
  'not terminal': 'is pending at the end',
  late: 'was still pending 30 s after the last fault',
  'no result': 'is terminal at gateway and has no result at processor',
  'outcomes differ': 'does not have the same outcome everywhere',
  changed: 'was terminal and became something else, though nobody redrove it',
  'redriven twice': 'has the outcome of more than one redrive, or of one that nobody asked for',
  'answered 404': 'was acknowledged and then not found',
  'never sent': 'has no request on the topic',
  'no reply': 'has no reply on the topic',
  'sent out of order': 'was accepted after another of the same user and sent before it',
  'performed out of order': 'was sent after another of the same user and performed before it',
  'sent twice in calm': 'was sent more than once while there was no fault',
  'untrue rate': 'uses a rate that no source had',
  'wrong amount': 'is not amount times rate',
  'wrong count': 'counts another amount than it is worth, or on another day',
  'over the limit': 'is a day on which a user got more than the limit',
  'wrong outcome': 'was refused although it fitted, or granted although it did not',
  'paid wrongly': 'was paid though it did not succeed, or another amount, currency or payee than it asked for',
  'not paid': 'succeeded, and the provider has no settled payment for it',
  'paid twice': 'has more than one payment or reservation at the provider',
  'paid without approval': 'is above the bound and was paid, and no operator had approved it',
  'left reserved': 'has ended, and the provider still holds money for it',
  'history broken': 'has records that are not whole, do not end once, or are not what the provider did',
  'progress differs': 'does not have the progress that its run recorded',
  'not told': 'was cancelled or answered with 202, and the topic does not say so',
  'never asked': 'was cancelled or answered, and nobody asked for it',
  'answered wrongly': 'was cancelled or answered by someone who may not, or after its end, and that was accepted',
  'chain broken': 'does not follow from the event before it',
  'event missing': 'is on a topic and not in the audit',
  'event twice': 'is in the audit more than once',
  'event without message': 'is in the audit and was on no topic',
  'dead letter missing': 'could not be handled and is not among the dead letters',
  'dead letter twice': 'is among the dead letters more than once',
  'dead letter without cause': 'is among the dead letters although it could be handled',
  'shown wrongly': 'is not shown as it is stored',
  'left in the outbox': 'is still to be sent, long after the last fault',
  'did not drain': 'did not end in order when it was asked to',
  'too large': 'takes more memory or more of the disk than its bound',
} as const
export type Rule = keyof typeof rules

export interface Violation {
  readonly rule: Rule
  /** Which operation, event, user, process or file. */
  readonly subject: string
  readonly detail: string
}

export function violation(rule: Rule, subject: string, detail = ''): Violation {
  return { rule, subject, detail }
}
