import java.io.File;
import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** Copies a topic, doubled numbers, at least once; the job fails as planned the first time that it meets a number, and goes on from its checkpoint. */
public class Copy {
    public static void main(String[] arguments) throws Exception {
        String address = arguments[0];
        File folder = new File(arguments[1]);
        int failsAt = Integer.parseInt(arguments[2]);
        Configuration settings = new Configuration();
        settings.set(RestartStrategyOptions.RESTART_STRATEGY, "fixed-delay");
        settings.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_ATTEMPTS, 10);
        settings.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_DELAY, Duration.ofMillis(500));
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, new File(folder, "checkpoints").toURI().toString());
        var environment = StreamExecutionEnvironment.createLocalEnvironment(2, settings);
        environment.enableCheckpointing(300);

        var source = KafkaSource.<String>builder()
            .setBootstrapServers(address).setTopics("in").setGroupId("flink")
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setValueOnlyDeserializer(new SimpleStringSchema()).build();
        var sink = KafkaSink.<String>builder()
            .setBootstrapServers(address).setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
            .setRecordSerializer(KafkaRecordSerializationSchema.<String>builder()
                .setTopic("out").setValueSerializationSchema(new SimpleStringSchema()).build())
            .build();
        environment.fromSource(source, WatermarkStrategy.noWatermarks(), "in")
            .map(new Doubling(new File(folder, "failed").getPath(), failsAt)).sinkTo(sink);
        environment.execute("copy");
    }

    static class Doubling implements MapFunction<String, String> {
        private final String failed;
        private final int failsAt;

        Doubling(String failed, int failsAt) {
            this.failed = failed;
            this.failsAt = failsAt;
        }

        @Override
        public String map(String text) throws Exception {
            int number = Integer.parseInt(text);
            if (number == failsAt && new File(failed).createNewFile()) {
                throw new IllegalStateException("the planned failure");
            }
            return text + " " + 2 * number;
        }
    }
}
