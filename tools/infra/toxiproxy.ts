import { join } from 'node:path'
import { build, missingForGo } from './build.ts'
import { freePort, runServer, serverFolder } from './server.ts'

/** What a proxy does to its connections: see https://github.com/Shopify/toxiproxy#toxics. */
export type Toxic =
  | { readonly type: 'latency'; readonly attributes: { readonly latency: number; readonly jitter: number } }
  /** No data passes. The connection is closed after `timeout` ms, or never if it is 0. */
  | { readonly type: 'timeout'; readonly attributes: { readonly timeout: number } }
  /** The connection is reset after `timeout` ms. */
  | { readonly type: 'reset_peer'; readonly attributes: { readonly timeout: number } }

/** A TCP proxy in front of a server on this machine. */
export interface TcpProxy {
  readonly port: number
  /** Closes every connection and accepts none. */
  cut(): Promise<void>
  /** Applies `toxic` to every connection, present and future, in both directions. */
  hurt(toxic: Toxic): Promise<void>
  /** Accepts connections and removes every toxic. Connections that suffered one may be broken. */
  heal(): Promise<void>
}

export interface Toxiproxy {
  /** @param port of the server behind it, which need not run yet. @param listen where clients connect; a free port by default. */
  proxy(name: string, port: number, listen?: number): Promise<TcpProxy>
  stop(): Promise<void>
}

const source = join(import.meta.dir, 'toxiproxy')
const binary = {
  name: 'toxiproxy-2.12.0',
  sources: ['go.mod', 'go.sum'].map((file) => join(source, file)),
  command: (output: string) => [
    ...['go', 'build', '-mod=readonly', '-trimpath', '-o', `${output}/toxiproxy`],
    'github.com/Shopify/toxiproxy/v2/cmd/server',
  ],
}

/** What this machine lacks to run Toxiproxy, in words for a person; empty when nothing is missing. */
export const missingForToxiproxy = () => missingForGo(binary)

export async function startToxiproxy(): Promise<Toxiproxy> {
  const built = await build(binary)
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`

  async function ask(method: 'GET' | 'POST' | 'DELETE', path: string, body?: object): Promise<unknown> {
    const response = await fetch(url + path, { method, ...(body && { body: JSON.stringify(body) }) })
    if (!response.ok) throw new Error(`Toxiproxy answered ${response.status} to ${path}: ${await response.text()}`)
    return response.status === 204 ? undefined : response.json()
  }

  const server = await runServer({
    name: 'Toxiproxy',
    url,
    command: [join(built, 'toxiproxy'), '-host', '127.0.0.1', '-port', String(port)],
    answers: async () => void (await ask('GET', '/proxies')),
    ...serverFolder('toxiproxy'),
  })
  return {
    async proxy(name, behind, listen) {
      const at = listen ?? (await freePort())
      const settings = { name, listen: `127.0.0.1:${at}`, upstream: `127.0.0.1:${behind}`, enabled: true }
      await ask('POST', '/proxies', settings)
      const path = `/proxies/${name}`
      let toxics: string[] = []
      return {
        port: at,
        async cut() {
          await ask('POST', path, { ...settings, enabled: false })
        },
        async hurt(toxic) {
          for (const stream of ['upstream', 'downstream']) {
            const toxicName = `${toxic.type}-${stream}`
            await ask('POST', `${path}/toxics`, { ...toxic, name: toxicName, stream, toxicity: 1 })
            toxics.push(toxicName)
          }
        },
        async heal() {
          await ask('POST', path, settings)
          for (const each of toxics) await ask('DELETE', `${path}/toxics/${each}`)
          toxics = []
        },
      }
    },
    stop: server.stop,
  }
}
