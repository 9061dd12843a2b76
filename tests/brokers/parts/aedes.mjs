// aedes on a loopback port, with its persistence in memory: node aedes.mjs FOLDER PORT [closed]
import { createRequire } from 'node:module'
import { createServer } from 'node:net'

const [folder, port, closed] = process.argv.slice(2)
const { Aedes } = createRequire(`${folder}/`)('aedes')
const broker = await Aedes.createBroker()
if (closed) {
  broker.authenticate = (_client, _name, _password, done) => done(Object.assign(new Error('refused'), { returnCode: 4 }), false)
}
const server = createServer(broker.handle)
server.listen(Number(port), '127.0.0.1')
process.on('SIGTERM', () => broker.close(() => process.exit(0)))
