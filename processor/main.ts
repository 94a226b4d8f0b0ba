import { run } from '@posta/common/service/run.ts'
import { processor } from './processor.ts'

await run(processor)
