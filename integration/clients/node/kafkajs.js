// KafkaJS: gzip and plain, a group, admin.
const { Kafka, CompressionTypes, logLevel } = require('kafkajs')

async function main() {
  const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.ERROR })
  const admin = kafka.admin()
  await admin.connect()
  if (!(await admin.createTopics({ topics: [{ topic: 'js', numPartitions: 2 }] }))) throw new Error('topic not made')
  const producer = kafka.producer({ idempotent: true })
  await producer.connect()
  for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
    const messages = [...Array(100).keys()].map((i) => ({ key: `${i}`, value: `${compression}-${i}`, headers: { h: '1' } }))
    await producer.send({ topic: 'js', acks: -1, compression, messages })
  }
  await producer.disconnect()
  const consumer = kafka.consumer({ groupId: 'js' })
  await consumer.connect()
  await consumer.subscribe({ topic: 'js', fromBeginning: true })
  const found = new Set()
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`only ${found.size} records`)), 60000)
    consumer.run({
      eachMessage: async ({ message }) => {
        found.add(message.value.toString())
        if (found.size === 200) resolve()
      },
    })
  })
  await consumer.disconnect()
  const metadata = await admin.fetchTopicMetadata({ topics: ['js'] })
  if (metadata.topics[0].partitions.length !== 2) throw new Error('partitions')
  await admin.deleteTopics({ topics: ['js'] })
  await admin.disconnect()
  console.log('good')
  process.exit(0)
}

main().catch((error) => { console.error(error); process.exit(1) })
