import { type Environment, REPOSITORY_ROOT } from '../../common/service/config.ts'
import { environmentFor } from '../../tools/infra/server.ts'

/** Runs a program of the repository to its end, with `input` on its standard input. */
export async function runProgram(
  words: readonly string[],
  options: { environment?: Environment; input?: string } = {},
): Promise<{ code: number; out: string; error: string }> {
  const child = Bun.spawn([process.execPath, ...words], {
    cwd: REPOSITORY_ROOT,
    env: { ...environmentFor(), ...options.environment },
    stdio: [new Blob([options.input ?? '']), 'pipe', 'pipe'],
  })
  const [out, error] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()])
  return { code: await child.exited, out, error }
}
