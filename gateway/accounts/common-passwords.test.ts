import { expect, test } from 'bun:test'
import { isCommon } from './common-passwords.ts'

const EMAIL = 'ana.maria@example.com'

test('a password is common if it is known, a combination or repetition of known ones, the email or the name of the system', () => {
  const common = [
    '1qaz2wsx3edc4rfv',
    'PasswordPassword',
    'password12345678',
    'qwertyuiop123456',
    '123456789012345',
    'aaaaaaaaaaaaaaaaaaaa',
    'abcabcabcabcabca',
    'xK3$xK3$xK3$xK3$',
    'ana.maria@example.com',
    'Ana.Maria123456',
    'postapostaposta',
    'posta1234567890',
  ]
  expect(common.filter((password) => !isCommon(password, EMAIL))).toEqual([])
})

test('other passwords are not common, such as several words in a row', () => {
  const good = [
    'correct horse battery staple',
    'correcthorsebatterystaple',
    'a sentence that only I know',
    'gato mesa lluvia 47',
    'k7#mQ2!vR9@xL4$',
    'ana.maria has a parrot',
  ]
  expect(good.filter((password) => isCommon(password, EMAIL))).toEqual([])
})
