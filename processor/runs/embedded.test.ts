import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { freshFile } from '@posta/common/testing/fresh-store.ts'
import { openEmbedded } from '../store/embedded.ts'
import { schema, statements } from './embedded.ts'
import { describeRuns } from './runs.suite.ts'

describeRuns('the embedded store', { fresh: () => freshFile(openEmbedded), atomicUpdates: true })
