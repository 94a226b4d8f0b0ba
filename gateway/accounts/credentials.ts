import * as v from 'valibot'

/** In lower case. The syntax is that of browsers: what `<input type="email">` accepts. */
export const Email = v.pipe(
  v.string(),
  v.maxLength(254, 'must have at most 254 characters'),
  v.rfcEmail('must be an email address'),
  v.toLowerCase(),
  v.metadata({ description: 'Compared in lower case.', examples: ['ana@example.com'] }),
)

const MIN_CHARACTERS = 15
const MAX_CHARACTERS = 256

/** NFKC, as NIST SP 800-63B-4 asks for: texts that look the same are the same password. */
const normalized = v.transform((password: string) => password.normalize('NFKC'))

/** A password that is being set. `refuseCommon` checks the rest. */
export const NewPassword = v.pipe(
  v.string(),
  v.check((password) => password.isWellFormed(), 'must be well-formed Unicode'),
  normalized,
  v.check((password) => {
    // NIST SP 800-63B-4 counts code points.
    const characters = [...password].length
    return characters >= MIN_CHARACTERS && characters <= MAX_CHARACTERS
  }, `must have ${MIN_CHARACTERS} to ${MAX_CHARACTERS} characters`),
  v.metadata({
    description: `${MIN_CHARACTERS} to ${MAX_CHARACTERS} characters of any kind, and none of the common passwords.`,
    examples: ['a long sentence that only you know'],
  }),
)

/** A password that is being compared. Today's rules do not apply: others may have been in force when it was set. */
export const GivenPassword = v.pipe(v.string(), v.maxLength(4096, 'must have at most 4096 characters'), normalized)

export const RefreshToken = v.pipe(v.string(), v.maxLength(256, 'must have at most 256 characters'))

/** Optional everywhere: see devices.ts. One that is not valid is like none. */
export const DeviceToken = v.pipe(
  v.string(),
  v.maxLength(256, 'must have at most 256 characters'),
  v.description(
    'The device token of an earlier login with this email. Browsers send it as a cookie instead. With it, the passwords that strangers try do not hold up this login.',
  ),
)

/** What refresh answers. */
export const Tokens = v.object({
  accessToken: v.string(),
  tokenType: v.literal('Bearer'),
  expiresIn: v.pipe(v.number(), v.integer(), v.description('Seconds until the access token expires.')),
  refreshToken: v.string(),
  deviceToken: v.nullish(
    v.pipe(
      v.string(),
      v.description('A login answers with it. Keep it, send it with the next logins and refreshes from this device.'),
    ),
  ),
})
export type Tokens = v.InferOutput<typeof Tokens>
