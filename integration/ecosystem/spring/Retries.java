import java.io.FileOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.kafka.annotation.*;
import org.springframework.kafka.annotation.BackOff;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.*;
import org.springframework.kafka.retrytopic.RetryTopicHeaders;
import org.springframework.messaging.handler.annotation.Header;
import org.springframework.scheduling.concurrent.ThreadPoolTaskScheduler;

/**
 * A listener with retry topics. Of the numbers that come, of every fifty one succeeds only at the third attempt and one never:
 * they end in the dead letters. What became of each is a line in a file.
 */
@Configuration
@EnableKafka
@EnableKafkaRetryTopic
public class Retries {
    static String address;
    static FileOutputStream file;

    public static void main(String[] arguments) throws Exception {
        address = arguments[0];
        file = new FileOutputStream(arguments[1], true);
        new AnnotationConfigApplicationContext(Retries.class);
        Thread.currentThread().join();
    }

    static synchronized void note(String line) throws Exception {
        file.write((line + "\n").getBytes(StandardCharsets.UTF_8));
    }

    @RetryableTopic(attempts = "3", backOff = @BackOff(delay = 200), numPartitions = "2", replicationFactor = "1", kafkaTemplate = "template")
    @KafkaListener(topics = "numbers", groupId = "numbers")
    public void number(String text, @Header(name = RetryTopicHeaders.DEFAULT_HEADER_ATTEMPTS, required = false) Integer attempt) throws Exception {
        int number = Integer.parseInt(text);
        int tries = attempt == null ? 1 : attempt;
        if (number % 50 == 3 || number % 50 == 5 && tries < 3) {
            throw new IllegalStateException("not at attempt " + tries + ": " + number);
        }
        note("done " + number + " " + tries);
    }

    @DltHandler
    public void dead(String text) throws Exception {
        note("dead " + text);
    }

    @Bean
    public ConsumerFactory<String, String> consumers() {
        Map<String, Object> settings = new HashMap<>();
        settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, address);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, 6000);
        settings.put(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, 1000);
        settings.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
        settings.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
        return new DefaultKafkaConsumerFactory<>(settings);
    }

    @Bean
    public ConcurrentKafkaListenerContainerFactory<String, String> kafkaListenerContainerFactory(ConsumerFactory<String, String> consumers) {
        var factory = new ConcurrentKafkaListenerContainerFactory<String, String>();
        factory.setConsumerFactory(consumers);
        factory.getContainerProperties().setPollTimeout(100);
        return factory;
    }

    @Bean
    public KafkaTemplate<String, String> template() {
        Map<String, Object> settings = new HashMap<>();
        settings.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, address);
        settings.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        settings.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        return new KafkaTemplate<>(new DefaultKafkaProducerFactory<>(settings));
    }

    @Bean
    public KafkaAdmin admin() {
        return new KafkaAdmin(Map.of(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, address));
    }

    @Bean
    public ThreadPoolTaskScheduler scheduler() {
        return new ThreadPoolTaskScheduler();
    }
}
