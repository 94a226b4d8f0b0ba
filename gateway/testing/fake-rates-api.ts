/**
 * How the fake API answers. `ok`: as the real one; `slow`: not before the client gives up; `stalled`: begins, then nothing;
 * `down`: 500; `busy`: 503 with Retry-After; `huge`: 50 MB of JSON; `not-json`; `nan`: `NaN` for a rate, which is not
 * JSON; `null-rate`; `negative`; `zero`; `wrong-shape`: rates in a list; `other-base`: another currency's table;
 * `redirect`: to a table that would do; `not-found`: 404.
 */
export type Behaviour =
  | 'ok'
  | 'slow'
  | 'stalled'
  | 'down'
  | 'busy'
  | 'huge'
  | 'not-json'
  | 'nan'
  | 'null-rate'
  | 'negative'
  | 'zero'
  | 'wrong-shape'
  | 'other-base'
  | 'redirect'
  | 'not-found'

export interface FakeApi {
  /** For RATES_URL. */
  readonly url: string
  /** The paths asked for so far, in order. */
  readonly asked: readonly string[]
  /** How many bytes of a `huge` answer were taken from it. */
  readonly hugeBytes: number
  /** Each next request takes the next behaviour; the last one stays. */
  behave(...behaviours: [Behaviour, ...Behaviour[]]): void
  /** The `date` of the answers from now on; without one, the present UTC day. */
  setDate(date: string | undefined): void
  /** Ends requests under way, too. */
  stop(): Promise<void>
}

/** What one unit of any base is worth, except for the base itself, which is 1. */
export const fakeRates = { usd: 1.25, eur: 0.8, ars: 1472.5, jpy: 150, kwd: 0.3, btc: 1.5e-9 } as const

const MB = 1024 * 1024

/** An external API for tests, on a free port of this machine. It answers for every code. */
export function startFakeApi(): FakeApi {
  const asked: string[] = []
  let behaviours: readonly Behaviour[] = ['ok']
  let date: string | undefined
  let hugeBytes = 0

  const server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    idleTimeout: 60,
    fetch(request) {
      const { pathname } = new URL(request.url)
      asked.push(pathname)
      const [behaviour = 'ok', ...rest] = behaviours
      if (rest.length > 0) behaviours = rest
      const code = /^\/(?:elsewhere\/)?v1\/currencies\/([a-z0-9]+)\.json$/.exec(pathname)?.[1]
      if (code === undefined) return new Response('not found', { status: 404 })
      return answer(pathname.startsWith('/elsewhere/') ? 'ok' : behaviour, code, request.signal)
    },
  })

  async function answer(behaviour: Behaviour, code: string, gone: AbortSignal): Promise<Response> {
    const day = date ?? new Date().toISOString().slice(0, 10)
    const table = (rates: unknown) => Response.json({ date: day, [code]: rates })
    switch (behaviour) {
      case 'ok':
        return table({ ...fakeRates, [code]: 1 })
      case 'slow':
        await new Promise<void>((resolve) => gone.addEventListener('abort', () => resolve(), { once: true }))
        return new Response(null, { status: 504 })
      case 'stalled':
        return new Response(
          new ReadableStream({
            start(controller) {
              controller.enqueue(new TextEncoder().encode(`{"date": "${day}", "${code}": {`))
            },
          }),
        )
      case 'down':
        return new Response('broken', { status: 500 })
      case 'busy':
        return new Response('busy', { status: 503, headers: { 'retry-after': '60' } })
      case 'huge':
        return huge(day, code)
      case 'not-json':
        return new Response('<html>', { headers: { 'content-type': 'application/json' } })
      case 'nan':
        return new Response(`{"date": "${day}", "${code}": {"usd": 1.25, "ars": NaN}}`)
      case 'null-rate':
        return table({ ...fakeRates, [code]: 1, ars: null })
      case 'negative':
        return table({ ...fakeRates, [code]: 1, ars: -1472.5 })
      case 'zero':
        return table({ ...fakeRates, [code]: 1, ars: 0 })
      case 'wrong-shape':
        return table([{ code: 'ars', rate: 1472.5 }])
      case 'other-base':
        return table({ ...fakeRates, [code]: 1.25 })
      case 'redirect':
        return Response.redirect(`${server.url.origin}/elsewhere/v1/currencies/${code}.json`, 302)
      case 'not-found':
        return new Response('not found', { status: 404 })
    }
  }

  /** A table like any other, after 50 MB of white space. */
  function huge(day: string, code: string): Response {
    const blank = new Uint8Array(64 * 1024).fill(0x20)
    let leftBytes = 50 * MB
    return new Response(
      new ReadableStream<Uint8Array>({
        pull(controller) {
          if (leftBytes > 0) {
            controller.enqueue(blank)
            leftBytes -= blank.byteLength
            hugeBytes += blank.byteLength
          } else {
            controller.enqueue(new TextEncoder().encode(JSON.stringify({ date: day, [code]: fakeRates })))
            controller.close()
          }
        },
      }),
    )
  }

  return {
    url: server.url.origin,
    asked,
    get hugeBytes() {
      return hugeBytes
    },
    behave(...next) {
      behaviours = next
    },
    setDate(next) {
      date = next
    },
    stop: () => server.stop(true),
  }
}
