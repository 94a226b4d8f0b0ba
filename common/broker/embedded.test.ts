import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeBroker } from './broker.suite.ts'
import { openEmbedded } from './embedded.ts'

describeBroker('the embedded broker', fresh, { takeoverMs: 5000, membersShare: false })

function fresh() {
  const folder = mkdtempSync(join(tmpdir(), 'broker-'))
  const path = join(folder, 'broker.sqlite')
  return {
    path,
    open: () => openEmbedded({ path }),
    child: { module: join(import.meta.dir, 'embedded.ts'), open: openEmbedded.name, options: { path } },
    dispose: () => rmSync(folder, { recursive: true }),
  }
}
