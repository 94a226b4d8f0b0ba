import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { MongoClient } from 'mongodb'
import { build, missingForGo } from './build.ts'
import { freePort, runServer, type Server, type ServerOptions, serverFolder } from './server.ts'

const source = join(import.meta.dir, 'ferretdb')
const binary = {
  name: 'ferretdb-1.24.2',
  sources: ['main.go', 'go.mod', 'go.sum'].map((file) => join(source, file)),
  command: (output: string) => ['go', 'build', '-mod=readonly', '-trimpath', '-o', `${output}/ferretdb`, '.'],
}

/** What this machine lacks to run FerretDB, in words for a person; empty when nothing is missing. */
export const missingForFerretdb = () => missingForGo(binary)

/** Starts FerretDB, which speaks MongoDB's protocol over SQLite files. Resolves when it takes writes. */
export async function startFerretdb(options: ServerOptions = {}): Promise<Server> {
  const built = await build(binary)
  const at = serverFolder('ferretdb', options.directory)
  const data = join(at.folder, 'data')
  mkdirSync(data, { recursive: true })
  const port = await freePort(options.port)
  const url = `mongodb://127.0.0.1:${port}/`
  return runServer({
    name: 'FerretDB',
    url,
    command: [join(built, 'ferretdb'), `127.0.0.1:${port}`, data],
    answers: () => mongoAnswers(url),
    ...at,
  })
}

/** Rejects unless the server takes writes: a member of a replica set answers before it is elected. */
export async function mongoAnswers(url: string): Promise<void> {
  const client = new MongoClient(url, { serverSelectionTimeoutMS: 1000, connectTimeoutMS: 1000, socketTimeoutMS: 5000 })
  try {
    const { isWritablePrimary } = await client.db('admin').command({ hello: 1 })
    if (isWritablePrimary !== true) throw new Error('it does not take writes yet')
  } finally {
    await client.close()
  }
}
