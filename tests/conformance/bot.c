/* A bot over C's libzmq: asks for each row by name and listed, over REQ and DEALER, and reports a
 * trade; prints each reply on a line. JSON is written by printf and read by looking for a field.
 * usage: bot PREDICT_ENDPOINT MODEL FEATURES < rows, one a line, numbers separated by blanks */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { LONGEST = 1 << 16, MOST_FEATURES = 64 };

static char reply[LONGEST];

static void *connected(void *context, int type, const char *endpoint)
{
    void *socket = zmq_socket(context, type);
    int linger = 0, timeout = 5000;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &timeout, sizeof timeout);
    if (zmq_connect(socket, endpoint) != 0) {
        fprintf(stderr, "%s: %s\n", endpoint, zmq_strerror(zmq_errno()));
        exit(1);
    }
    return socket;
}

static const char *ask(void *socket, const char *message)
{
    zmq_send(socket, message, strlen(message), 0);
    int size = zmq_recv(socket, reply, sizeof reply - 1, 0);
    if (size < 0 || size >= (int) sizeof reply) {
        fprintf(stderr, "no reply to %s\n", message);
        exit(1);
    }
    reply[size] = 0;
    puts(reply);
    return reply;
}

/* Copy the text behind "name":" up to the closing quote. */
static void field(const char *json, const char *name, char *text, size_t size)
{
    char key[80];
    snprintf(key, sizeof key, "\"%s\":\"", name);
    const char *found = strstr(json, key);
    size_t length = 0;
    if (found) {
        found += strlen(key);
        length = strcspn(found, "\"");
    }
    snprintf(text, size, "%.*s", (int) length, found ? found : "");
}

static void write_row(char *message, size_t size, const char *model, char **names, int count,
                      char **values, int by_name)
{
    size_t end = snprintf(message, size, "{\"v\":1,\"op\":\"predict\",\"id\":\"c\",\"model\":\"%s\","
                          "\"features\":%s", model, by_name ? "{" : "[");
    for (int i = 0; i < count; i++) {
        const char *comma = i ? "," : "";
        end += by_name ? snprintf(message + end, size - end, "%s\"%s\":%s", comma, names[i], values[i])
                       : snprintf(message + end, size - end, "%s%s", comma, values[i]);
    }
    snprintf(message + end, size - end, "%s}", by_name ? "}" : "]");
}

int main(int argc, char **argv)
{
    char message[LONGEST], line[LONGEST], feedback[256], id[64], build[256];
    char *names[MOST_FEATURES], *values[MOST_FEATURES];
    int count = argc - 3;
    if (count < 1 || count > MOST_FEATURES)
        return 2;
    for (int i = 0; i < count; i++)
        names[i] = argv[3 + i];
    void *context = zmq_ctx_new();
    void *dealer = connected(context, ZMQ_DEALER, argv[1]);
    void *request = connected(context, ZMQ_REQ, argv[1]);
    field(ask(request, "{\"op\":\"hello\",\"id\":\"h\"}"), "feedback", feedback, sizeof feedback);
    while (fgets(line, sizeof line, stdin)) {
        values[0] = strtok(line, " \n");
        for (int i = 1; i < count; i++)
            values[i] = strtok(NULL, " \n");
        write_row(message, sizeof message, argv[2], names, count, values, 1);
        ask(request, message);
        field(reply, "prediction_id", id, sizeof id);
        field(reply, "build", build, sizeof build);
        write_row(message, sizeof message, argv[2], names, count, values, 0);
        ask(dealer, message);
    }
    snprintf(message, sizeof message, "{\"op\":\"predict\",\"id\":\"e\",\"model\":\"%s\",\"features\":{}}", argv[2]);
    ask(dealer, message);
    void *recorder = connected(context, ZMQ_DEALER, feedback);
    snprintf(message, sizeof message,
             "{\"op\":\"outcome\",\"id\":\"o\",\"bot\":\"c\",\"run\":\"1\",\"trade\":\"1\",\"seq\":1,"
             "\"status\":\"closed\",\"final\":true,\"prediction_id\":\"%s\",\"build\":\"%s\","
             "\"pnl\":1.5,\"currency\":\"USD\",\"closed_at\":1742860800000}", id, build);
    ask(recorder, message);
    zmq_close(dealer);
    zmq_close(request);
    zmq_close(recorder);
    zmq_ctx_term(context);
    return 0;
}
