import { type Answer, call } from '../../tools/client.ts'

/** As `call`, but where no answer comes it resolves to status 0, with the error as the body. */
export function tryCall(...request: Parameters<typeof call>): Promise<Answer> {
  return call(...request).catch((error: unknown) => ({ status: 0, headers: new Headers(), body: error }))
}
