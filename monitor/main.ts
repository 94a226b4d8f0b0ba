import { run } from '@posta/common/service/run.ts'
import { monitor } from './monitor.ts'

await run(monitor)
