import { expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { verify } from './chain.ts'
import { openEmbedded } from './events/embedded.ts'
import { measureIngest } from './measure-ingest.ts'

test('what is measured is the storing of every message, in whole chains', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'posta-measure-'))
  try {
    const { ingestPerS, rawPerS } = await measureIngest(folder, 1200)
    expect(ingestPerS).toBeGreaterThan(0)
    expect(rawPerS).toBeGreaterThan(0)
    for (const name of ['ingested.db', 'raw.db']) {
      const store = openEmbedded(join(folder, name))
      const { chains } = await verify(store.events.inChainOrder())
      await store.close()
      expect(chains).toMatchObject([{ events: 1200 }])
      expect(chains[0]).not.toHaveProperty('firstBad')
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
