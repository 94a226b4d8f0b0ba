import { dieAt, type Trouble } from './orders.ts'

/** `fetch` that may kill the process before and after what it asks the provider to do. */
export function dieAroundCalls(
  given: typeof fetch,
  provider: string | undefined,
  trouble: Pick<Trouble, 'killAt'>,
): typeof fetch {
  async function call(...[input, init]: Parameters<typeof fetch>): Promise<Response> {
    const { url, method } = input instanceof Request ? input : { url: String(input), method: init?.method ?? 'GET' }
    if (provider === undefined || !url.startsWith(provider)) return given(input, init)
    dieAt(trouble, 'before-call')
    const response = await given(input, init)
    if (method === 'POST') dieAt(trouble, 'after-call')
    if (method === 'DELETE') dieAt(trouble, 'during-undo')
    return response
  }
  return Object.assign(call, { preconnect: given.preconnect })
}
