/** What can be found, and what it means. */
export const rules = {
  lost: 'was acknowledged and is not in gateway’s database',
  'key of two': 'is one idempotency key for two operations',
  'two keys': 'is one operation for two idempotency keys',
  altered: 'is not what was submitted',
  'refused with effect': 'was refused and exists',
  'of nobody': 'exists and nobody asked for it',
  'not terminal': 'is pending at the end',
  late: 'was still pending 30 s after the last fault',
  'no result': 'is terminal at gateway and has no result at processor',
  'outcomes differ': 'has not the same outcome everywhere',
  changed: 'was terminal and became something else, though nobody redrove it',
  'redriven twice': 'has more than one outcome of redrives, or one that was not asked for',
  'said 404': 'was acknowledged and then said not to exist',
  'never sent': 'has no request on the topic',
  'no reply': 'has no reply on the topic',
  'sent out of order': 'was accepted after another of the same user and sent before it',
  'performed out of order': 'was sent after another of the same user and performed before it',
  'sent twice in calm': 'was sent more than once while nothing went wrong',
  'untrue rate': 'rests on a rate that no source ever had',
  'wrong amount': 'is not amount times rate',
  'wrong count': 'counts another amount than it is worth, or on another day',
  'over the limit': 'is a day on which a user got more than the limit',
  'wrong outcome': 'was refused although it fitted, or granted although it did not',
  'chain broken': 'does not follow from the event before it',
  'event missing': 'is on a topic and not in the audit',
  'event twice': 'is in the audit more than once',
  'event of nothing': 'is in the audit and was on no topic',
  'dead letter missing': 'could not be handled and is not among the dead letters',
  'dead letter twice': 'is among the dead letters more than once',
  'dead letter without cause': 'is among the dead letters and nothing was wrong with it',
  'shown wrongly': 'is not shown as it is stored',
  'left in the outbox': 'is still to be sent, long after everything is quiet',
  'did not drain': 'did not end in order when it was asked to',
  'too large': 'takes more memory or more of the disk than is bounded',
} as const
export type Rule = keyof typeof rules

export interface Violation {
  readonly rule: Rule
  /** Which operation, event, user, process or file. */
  readonly subject: string
  readonly detail: string
}
