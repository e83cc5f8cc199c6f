/* The client paho-mqtt in C (MQTTAsync): the same arguments and output as the others. */

#include <MQTTAsync.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *topic = "bench/messages";
static sem_t answered, window, arrived;
static MQTTAsync client;
static int count, batch, taken;
static int is_receiver;
static double wall, processor;

static double seconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void start(void) {
    wall = seconds(CLOCK_MONOTONIC);
    processor = seconds(CLOCK_PROCESS_CPUTIME_ID);
}

static void report(void) {
    double elapsed = seconds(CLOCK_MONOTONIC) - wall;
    double used = seconds(CLOCK_PROCESS_CPUTIME_ID) - processor;
    printf("result %.1f %.4f\n", count / elapsed, used * 1e6 / count);
}

static void on_success(void *context, MQTTAsync_successData *data) {
    (void)context, (void)data;
    sem_post(&answered);
}

static void on_published(void *context, MQTTAsync_successData *data) {
    (void)context, (void)data;
    sem_post(&window);
}

static void on_failure(void *context, MQTTAsync_failureData *data) {
    (void)context;
    fprintf(stderr, "failed: %d\n", data ? data->code : 0);
    exit(1);
}

static void publish(const char *to, void *payload, int size, int qos, int is_counted) {
    MQTTAsync_message message = MQTTAsync_message_initializer;
    MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
    message.payload = payload;
    message.payloadlen = size;
    message.qos = qos;
    options.onFailure = on_failure;
    options.onSuccess = is_counted ? on_published : NULL;
    if (MQTTAsync_sendMessage(client, to, &message, &options) != MQTTASYNC_SUCCESS) {
        fprintf(stderr, "cannot send\n");
        exit(1);
    }
}

static int on_message(void *context, char *name, int length, MQTTAsync_message *message) {
    (void)context, (void)length;
    if (is_receiver) {
        if (taken == 0) start();
        taken++;
        if (taken % batch == 0) publish("bench/credits", NULL, 0, 0, 0);
        if (taken == count) sem_post(&arrived);
    } else {
        sem_post(&arrived);
    }
    MQTTAsync_freeMessage(&message);
    MQTTAsync_free(name);
    return 1;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    const char *mode = argv[1];
    int qos = atoi(argv[3]), size = atoi(argv[4]);
    char url[64], id[64], *payload = malloc(size + 1);
    count = atoi(argv[5]);
    batch = 128 * 1024 / (size > 0 ? size : 1);
    batch = batch < 1 ? 1 : batch > 1000 ? 1000 : batch;
    memset(payload, 'x', size);
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%s", argv[2]);
    snprintf(id, sizeof id, "paho-%s", mode);
    sem_init(&answered, 0, 0);
    sem_init(&arrived, 0, 0);
    sem_init(&window, 0, qos == 0 ? 1000 : 100);
    MQTTAsync_create(&client, url, id, MQTTCLIENT_PERSISTENCE_NONE, NULL);
    MQTTAsync_setCallbacks(client, NULL, NULL, on_message, NULL);
    MQTTAsync_connectOptions connect = MQTTAsync_connectOptions_initializer;
    connect.cleansession = 1;
    connect.maxInflight = 100;
    connect.onSuccess = on_success;
    connect.onFailure = on_failure;
    if (MQTTAsync_connect(client, &connect) != MQTTASYNC_SUCCESS) return 1;
    sem_wait(&answered);
    is_receiver = strcmp(mode, "receive") == 0;
    if (strcmp(mode, "publish") != 0) {
        MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
        options.onSuccess = on_success;
        options.onFailure = on_failure;
        MQTTAsync_subscribe(client, topic, qos, &options);
        sem_wait(&answered);
        printf("ready\n");
    }
    if (strcmp(mode, "publish") == 0) {
        start();
        for (int number = 0; number < count; number++) {
            sem_wait(&window);
            publish(topic, payload, size, qos, 1);
        }
        for (int left = qos == 0 ? 1000 : 100; left > 0; left--) sem_wait(&window);
        report();
    } else if (is_receiver) {
        publish("bench/credits", NULL, 0, 0, 0);
        publish("bench/credits", NULL, 0, 0, 0);
        sem_wait(&arrived);
        report();
    } else {
        double *times = malloc(count * sizeof *times);
        for (int number = 0; number < count; number++) {
            double begin = seconds(CLOCK_MONOTONIC);
            publish(topic, payload, size, qos, 0);
            sem_wait(&arrived);
            times[number] = (seconds(CLOCK_MONOTONIC) - begin) * 1e6;
        }
        qsort(times, count, sizeof *times, compare);
        printf("latency %.1f %.1f\n", times[count / 2], times[count * 99 / 100]);
    }
    MQTTAsync_disconnectOptions end = MQTTAsync_disconnectOptions_initializer;
    end.onSuccess = on_success;
    end.timeout = 5000;
    MQTTAsync_disconnect(client, &end);
    sem_wait(&answered);
    MQTTAsync_destroy(&client);
    return 0;
}
