import { run } from '@posta/common/service/run.ts'
import { gateway } from './gateway.ts'

await run(gateway)
