import { encode } from '../messages/envelope.ts'
import type { Component } from '../service/component.ts'
import type { Deps } from '../service/deps.ts'
import type { Forbidden } from '../service/forbidden.ts'
import type { Logger } from '../service/log.ts'
import type { Tally } from '../service/tally.ts'
import { tellCounted } from '../service/tell-counted.ts'
import type { Broker } from './broker.ts'

/** A component that publishes, every 5 s, which requests were forbidden, and how often. */
export function tellForbidden(options: {
  forbidden: Tally<Forbidden>
  broker: Pick<Broker, 'publish'>
  deps: Pick<Deps, 'newId'>
  log: Pick<Logger, 'info' | 'warn'>
}): Component {
  const { forbidden, broker, deps, log } = options
  return tellCounted({
    name: 'forbidden requests',
    tally: forbidden,
    async tell(told) {
      const events = told.map(({ id, item, count, from, to }) =>
        encode({ id, type: 'posta.request.forbidden', time: to, data: { ...item, count, from, to } }),
      )
      await broker.publish(events)
    },
    newId: deps.newId,
    log,
  })
}
