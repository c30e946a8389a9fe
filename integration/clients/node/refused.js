// KafkaJS begins a transaction and asks for ACLs, which are not there: it is told soon.
const { Kafka, logLevel } = require('kafkajs')

async function told(what, question) {
  const begun = Date.now()
  let error
  try { await question() } catch (e) { error = e }
  if (!error || Date.now() - begun > 10000) throw new Error(`${what} after ${Date.now() - begun} ms: ${error}`)
  console.log(what, error.message)
}

async function main() {
  const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.NOTHING })
  const producer = kafka.producer({ transactionalId: 'js', idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  await told('transaction', () => producer.transaction())
  const admin = kafka.admin()
  await admin.connect()
  await told('ACLs', () => admin.describeAcls({
    resourceType: 1, resourcePatternType: 1, operation: 1, permissionType: 1 }))
  console.log('good')
  process.exit(0)
}

main().catch((error) => { console.error(error); process.exit(1) })
