// bunfig.toml loads this before every program and test here. It has no other imports: with an older Bun they would fail
// first, in words that do not help.
import { packageManager } from '../../package.json'

const [, needed = ''] = packageManager.split('@')

if (Bun.semver.order(Bun.version, needed) < 0) {
  console.error(`This needs Bun ${needed} or newer, and this is Bun ${Bun.version}.
For one command: npx -y bun@${needed} run demo
To install it: npm install --global bun@${needed}`)
  process.exit(1)
}
