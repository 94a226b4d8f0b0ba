import { expect, test } from 'bun:test'
import { createMetrics } from './metrics.ts'

test('metrics tell of the process, and nothing that takes a walk through its heap, since anyone may ask for them', async () => {
  const text = await createMetrics('test').metrics()
  expect(text).toContain('process_resident_memory_bytes{service_name="posta-test"}')
  expect(text).toContain('nodejs_heap_size_used_bytes')
  expect(text).not.toContain('nodejs_heap_space')
})
