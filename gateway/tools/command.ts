import { ConfigError } from '@posta/common/service/config.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { type GatewayConfig, readGatewayConfig } from '../config.ts'
import { type OpenDatabase, openDatabase } from '../database/open.ts'

type Action = (opened: OpenDatabase, config: GatewayConfig) => Promise<void>

/**
 * Runs what `choose` makes of the command line on gateway's database, whether or not a gateway runs. What goes wrong is
 * one message on standard error and exit code 1; what is wrong with the command line is so before anything is opened.
 */
export async function runCommand(choose: (argv: string[]) => Action): Promise<void> {
  try {
    const action = choose(process.argv.slice(2))
    const config = readGatewayConfig(process.env)
    const opened = await openDatabase(config.database)
    try {
      await action(opened, config)
    } finally {
      await opened.close()
    }
  } catch (error) {
    console.error(messageOf(error))
    process.exitCode = 1
  }
}

/** What whoever typed the command can put right: its message is all that is shown. */
export class CommandError extends Error {}

function messageOf(error: unknown): unknown {
  if (error instanceof CommandError || error instanceof ConfigError) return error.message
  if (!(error instanceof Problem)) return error
  return (
    error.errors?.map(({ pointer, detail }) => `${pointer.replace('#/', '')} ${detail}`).join('\n') ?? error.message
  )
}
