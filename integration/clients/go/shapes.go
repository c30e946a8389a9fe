// What compaction leaves, read by each of the Go clients: offset and key of each record up to a last offset.
package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/IBM/sarama"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

func shapes(family, address, topic, until string) {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	last, err := strconv.ParseInt(until, 10, 64)
	check(err)
	at := int64(-1)
	show := func(offset int64, key []byte) {
		at = offset
		fmt.Println(offset, string(key))
	}
	switch family {
	case "franz":
		client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
		check(err)
		for at < last {
			fetches := client.PollFetches(ctx)
			check(ctx.Err())
			fetches.EachError(func(_ string, _ int32, err error) { check(err) })
			fetches.EachRecord(func(r *kgo.Record) { show(r.Offset, r.Key) })
		}
		client.Close()
	case "sarama":
		config := sarama.NewConfig()
		config.Version = sarama.V3_6_0_0
		config.Consumer.Return.Errors = true
		consumer, err := sarama.NewConsumer([]string{address}, config)
		check(err)
		partition, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
		check(err)
		for at < last {
			select {
			case message := <-partition.Messages():
				show(message.Offset, message.Key)
			case err := <-partition.Errors():
				check(err)
			case <-ctx.Done():
				check(ctx.Err())
			}
		}
	case "kafka-go":
		// It stands still at a batch that is larger than its answers may be and does not come first in one.
		reader := kafkago.NewReader(kafkago.ReaderConfig{Brokers: []string{address}, Topic: topic, Partition: 0, MaxBytes: 64 << 20, MaxWait: 500 * time.Millisecond})
		check(reader.SetOffset(kafkago.FirstOffset))
		for at < last {
			message, err := reader.ReadMessage(ctx)
			check(err)
			show(message.Offset, message.Key)
		}
		check(reader.Close())
	}
}
