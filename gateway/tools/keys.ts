import { CommandError } from '@posta/common/service/command.ts'
import { systemDeps as deps } from '@posta/common/service/deps.ts'
import { type Keys, openKeys } from '../accounts/keys.ts'
import { eventAdder } from '../database/events.ts'
import { runCommand } from './command.ts'

const USAGE = `bun run keys rotate
bun run keys revoke KID
bun run keys list
bun run keys encrypt

rotate: the next key signs from now on.
revoke: for a key that was stolen. Within 60 s no service accepts a token of it; whoever had one logs in by refreshing.
encrypt: encrypts the private keys anew, under the first key of KEY_ENCRYPTION_KEY.`

async function showKeys(keys: Keys): Promise<string> {
  const lines = (await keys.list()).map(
    ({ kid, status, isEncrypted }) => `${kid} ${status}${isEncrypted ? ', encrypted' : ''}`,
  )
  return lines.join('\n')
}

const actions: Readonly<Record<string, (keys: Keys, kid: string) => Promise<string>>> = {
  rotate: async (keys) => `${await keys.rotate()} signs from now on. Running gateways use it within 10 s.
Tokens signed by the previous key stay valid until the next rotation.`,

  async revoke(keys, kid) {
    const current = await keys.revoke(kid)
    if (current === undefined)
      throw new CommandError(`There is no key of this id. These are there:\n${await showKeys(keys)}`)
    return `${kid} is revoked: within 60 s no service accepts a token of it. ${current} signs from now on.`
  },

  list: showKeys,

  async encrypt(keys) {
    const plain = await keys.encrypt()
    const done = 'The private keys are encrypted under the first key of KEY_ENCRYPTION_KEY; any other there can go.'
    return plain === 0
      ? done
      : `${done}\nThey were readable before, in backups too: \`bun run keys rotate\`, twice, replaces them.`
  },
}

await runCommand((argv) => {
  const [name = '', kid = '', ...more] = argv
  const action = Object.hasOwn(actions, name) ? actions[name] : undefined
  if (!action || more.length > 0 || (name === 'revoke') !== (kid !== '')) throw new CommandError(USAGE)
  return async (opened, { tokenKeys, keyEncryptionKeys }) => {
    if (tokenKeys) throw new CommandError('The keys come from TOKEN_KEYS: change them there, and restart gateway.')
    if (name === 'encrypt' && keyEncryptionKeys.length === 0) throw new CommandError('KEY_ENCRYPTION_KEY is not set.')
    const keys = await openKeys({
      ...opened,
      addEvent: eventAdder(deps),
      encryptionKeys: keyEncryptionKeys,
      deps,
    })
    console.log(await action(keys, kid))
  }
})
