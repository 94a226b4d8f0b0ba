import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { describeBroker } from './broker.suite.ts'
import { openQuietly } from './kafka.test.child.ts'

const url = process.env.TEST_BROKER_URL
if (url) {
  describeBroker(
    'kafka',
    () => {
      const options = { url, namespace: `test-${Bun.randomUUIDv7()}` }
      return {
        open: () => openQuietly(options),
        child: { module: join(import.meta.dir, 'kafka.test.child.ts'), open: 'openQuietly', options },
        dispose() {},
      }
    },
    { takeoverMs: 10_000, membersShare: true },
  )
}
test('x', () => expect(1).toBe(1))
