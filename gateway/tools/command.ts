import { asCommand } from '@posta/common/service/command.ts'
import { type GatewayConfig, readGatewayConfig } from '../config.ts'
import { type OpenDatabase, openDatabase } from '../database/open.ts'

type Action = (opened: OpenDatabase, config: GatewayConfig) => Promise<void>

/**
 * Runs a command on gateway's database, which running gateways may use at the same time. `choose` reads the command line and
 * returns what to do, or throws CommandError, before anything is opened.
 */
export async function runCommand(choose: (argv: string[]) => Action): Promise<void> {
  await asCommand(async () => {
    const action = choose(process.argv.slice(2))
    const config = readGatewayConfig(process.env)
    const opened = await openDatabase(config.database)
    try {
      await action(opened, config)
    } finally {
      await opened.close()
    }
  })
}
