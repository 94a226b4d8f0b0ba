interface Asked {
  /** In lower case. */
  readonly code: string
  /** `YYYY-MM-DD` */
  readonly day: string
  /** Aborts when the client leaves. */
  readonly left: AbortSignal
  /** An answer of the API with these rates. */
  table(rates: unknown): Response
  /** Is told how many bytes of a `huge` answer were taken. */
  onBytes(bytes: number): void
}

const answers = {
  /** As the real one. */
  ok: ({ code, table }) => table({ ...fakeRates, [code]: 1 }),
  /** Not before the client gives up. */
  slow: async ({ left }) => {
    await new Promise<void>((resolve) => left.addEventListener('abort', () => resolve(), { once: true }))
    return new Response(null, { status: 504 })
  },
  /** Begins, then nothing. */
  stalled: ({ code, day }) =>
    new Response(
      new ReadableStream({
        start: (controller) => controller.enqueue(new TextEncoder().encode(`{"date": "${day}", "${code}": {`)),
      }),
    ),
  down: () => new Response('broken', { status: 500 }),
  /** With Retry-After. */
  busy: () => new Response('busy', { status: 503, headers: { 'retry-after': '60' } }),
  huge,
  'not-json': () => new Response('<html>', { headers: { 'content-type': 'application/json' } }),
  /** A rate that is NaN, which JSON does not have. */
  nan: ({ code, day }) => new Response(`{"date": "${day}", "${code}": {"usd": 1.25, "ars": NaN}}`),
  'null-rate': ({ code, table }) => table({ ...fakeRates, [code]: 1, ars: null }),
  negative: ({ code, table }) => table({ ...fakeRates, [code]: 1, ars: -1472.5 }),
  zero: ({ code, table }) => table({ ...fakeRates, [code]: 1, ars: 0 }),
  /** Rates in a list. */
  'wrong-shape': ({ table }) => table([{ code: 'ars', rate: 1472.5 }]),
  /** Another currency's table. */
  'other-base': ({ code, table }) => table({ ...fakeRates, [code]: 1.25 }),
  /** To a table that would do. */
  redirect: ({ code }) =>
    new Response(null, { status: 302, headers: { location: `/elsewhere/v1/currencies/${code}.json` } }),
  'not-found': () => new Response('not found', { status: 404 }),
} satisfies Record<string, (asked: Asked) => Response | Promise<Response>>

/** How the fake API answers. */
export type Behaviour = keyof typeof answers

export interface FakeApi {
  /** For RATES_URL. */
  readonly url: string
  /** The paths asked for so far, in order. */
  readonly asked: readonly string[]
  /** How many bytes of `huge` answers were taken. */
  readonly hugeBytes: number
  /** Each next request takes the next behaviour; the last one stays. */
  behave(...behaviours: [Behaviour, ...Behaviour[]]): void
  /** The `date` of the answers from now on. Undefined: the present UTC day. */
  setDate(date: string | undefined): void
  /** Ends requests under way, too. */
  stop(): Promise<void>
}

/** The worth of one unit of any base, except in the base itself, where it is 1. */
export const fakeRates = { usd: 1.25, eur: 0.8, ars: 1472.5, jpy: 150, kwd: 0.3, btc: 1.5e-9 } as const

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
      const [next = 'ok', ...rest] = behaviours
      if (rest.length > 0) behaviours = rest
      const [, elsewhere, code] = /^\/(elsewhere\/)?v1\/currencies\/([a-z0-9]+)\.json$/.exec(pathname) ?? []
      const day = date ?? new Date().toISOString().slice(0, 10)
      if (code === undefined) return answers['not-found']()
      return answers[elsewhere ? 'ok' : next]({
        code,
        day,
        left: request.signal,
        table: (rates) => Response.json({ date: day, [code]: rates }),
        onBytes(bytes) {
          hugeBytes += bytes
        },
      })
    },
  })

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

/** A table like any other, after 50 MB of white space. */
function huge({ code, day, onBytes }: Asked): Response {
  const blank = new Uint8Array(64 * 1024).fill(0x20)
  let leftBytes = 50 * 1024 * 1024
  return new Response(
    new ReadableStream<Uint8Array>({
      pull(controller) {
        if (leftBytes > 0) {
          controller.enqueue(blank)
          leftBytes -= blank.byteLength
          onBytes(blank.byteLength)
        } else {
          controller.enqueue(new TextEncoder().encode(JSON.stringify({ date: day, [code]: fakeRates })))
          controller.close()
        }
      },
    }),
  )
}
