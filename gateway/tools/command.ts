import { ConfigError } from '@posta/common/service/config.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { type GatewayConfig, readGatewayConfig } from '../config.ts'
import { type OpenDatabase, openDatabase } from '../database/open.ts'

type Action = (opened: OpenDatabase, config: GatewayConfig) => Promise<void>

/**
 * Runs a command on gateway's database, which running gateways may use at the same time. `choose` reads the command line and
 * returns what to do, or throws CommandError, before anything is opened. A failure is shown as one message on standard
 * error, with exit code 1.
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

/** A mistake of the person who typed the command. Only its message is shown. */
export class CommandError extends Error {}

function messageOf(error: unknown): unknown {
  if (error instanceof CommandError || error instanceof ConfigError) return error.message
  if (!(error instanceof Problem)) return error
  return (
    error.errors?.map(({ pointer, detail }) => `${pointer.replace('#/', '')} ${detail}`).join('\n') ?? error.message
  )
}
