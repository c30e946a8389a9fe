// After each acknowledgement with acks=1 KafkaJS is told that the partition ends behind the record, and deletes up to there.
const { Kafka, logLevel } = require('kafkajs')

async function main() {
  const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.ERROR })
  const [admin, producer] = [kafka.admin(), kafka.producer()]
  await admin.connect()
  await producer.connect()
  const topic = 'ends-js'
  if (!(await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] }))) throw new Error('topic not made')
  for (let number = 0; number < 150; number += 1) {
    await producer.send({ topic, acks: 1, messages: [{ value: 'v'.repeat(50) }] })
    const [{ high, low }] = await admin.fetchTopicOffsets(topic)
    if (high !== `${number + 1}`) throw new Error(`the log ends at ${high} after ${number + 1} records`)
    if (number % 10 === 9) {
      await producer.send({ topic, acks: 1, messages: [{ value: 'v' }] })
      number += 1
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '-1' }] })
      const [{ low: start }] = await admin.fetchTopicOffsets(topic)
      if (start !== `${number + 1}`) throw new Error(`the log starts at ${start}, and did at ${low}; ${number + 1} records were deleted`)
    }
  }
  await producer.disconnect()
  await admin.disconnect()
  console.log('good')
  process.exit(0)
}

main().catch((error) => { console.error(error); process.exit(1) })
