import { CommandError } from '@posta/common/service/command.ts'
import { systemDeps as deps } from '@posta/common/service/deps.ts'
import { openKeys } from '../accounts/keys.ts'
import { eventAdder } from '../database/events.ts'
import { runCommand } from './command.ts'

await runCommand((argv) => {
  if (argv.join(' ') !== 'rotate') throw new CommandError('bun run keys rotate')
  return async (opened, { tokenKeys }) => {
    if (tokenKeys) throw new CommandError('The keys come from TOKEN_KEYS: rotate them there.')
    const keys = await openKeys({ ...opened, addEvent: eventAdder(deps), deps })
    const kid = await keys.rotate()
    console.log(`${kid} signs from now on. Running gateways use it within 30 s.
Tokens signed by the previous key stay valid until the next rotation.`)
  }
})
