// A service, run as every service is, one part of which gives up as soon as it has started.
import { Hono } from 'hono'
import { run, service } from './lifecycle.ts'
import { createLog } from './log.ts'

const gaveUp = Promise.withResolvers<void>()
await run({
  portVariable: 'PORT',
  readConfig: () => ({ host: '127.0.0.1', port: 0 }),
  create: (_, listener) =>
    service({
      name: 'gives up',
      listener,
      app: new Hono(),
      parts: [
        { name: 'works', close: async () => console.log('closed in order') },
        { name: 'consumer', start: async () => gaveUp.reject(new Error('No broker took me.')), ended: gaveUp.promise },
      ],
      log: createLog('gives-up', 'info'),
      closing: new AbortController(),
    }),
})
