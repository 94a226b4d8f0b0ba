import { dieAt, type Trouble } from './orders.ts'
import type { Random } from './random.ts'

/** How often a payment is not settled yet when it is looked at, so that some are cancelled meanwhile. */
const PENDING = 0.4

/** `fetch` that may kill the process before and after what it asks the provider to do. Payments take their time. */
export function makeFetchFaulty(
  given: typeof fetch,
  options: {
    readonly provider: string | undefined
    readonly trouble: Pick<Trouble, 'killAt'>
    readonly random: Random
  },
): typeof fetch {
  const { provider, trouble, random } = options

  async function call(...[input, init]: Parameters<typeof fetch>): Promise<Response> {
    const { url, method } = input instanceof Request ? input : { url: String(input), method: init?.method ?? 'GET' }
    if (provider === undefined || !url.startsWith(provider)) return given(input, init)
    dieAt(trouble, 'before-call')
    const id = url.split('/').at(-1)
    if (method === 'GET' && random.chance(PENDING)) return Response.json({ id, status: 'pending' })
    const response = await given(input, init)
    if (method === 'POST') dieAt(trouble, 'after-call')
    if (method === 'DELETE') dieAt(trouble, 'during-undo')
    return response
  }
  return Object.assign(call, { preconnect: given.preconnect })
}
