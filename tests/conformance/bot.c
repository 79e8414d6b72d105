/* A bot over C's libzmq: asks over REQ and DEALER, in every way that is right and some that are
 * wrong, and reports a trade. Prints each reply on a line, and last the numbers that it read.
 * JSON is written by printf and read by looking for a field.
 * usage: bot PREDICT_ENDPOINT MODEL FEATURES... < rows, one a line, numbers separated by blanks */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { LONGEST = 1 << 16, MOST_FEATURES = 64, MOST_ROWS = 1000, PATIENCE_MS = 5000 };

struct row {
    int count;
    char *names[MOST_FEATURES + 1];
    char *values[MOST_FEATURES + 1];
};

static char message[LONGEST], reply[LONGEST];

static void *connected(void *context, int type, const char *endpoint)
{
    void *socket = zmq_socket(context, type);
    int linger = 0, patience = PATIENCE_MS;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
    if (zmq_connect(socket, endpoint) != 0) {
        fprintf(stderr, "%s: %s\n", endpoint, zmq_strerror(zmq_errno()));
        exit(1);
    }
    return socket;
}

static void ask(void *socket, const char *text)
{
    zmq_send(socket, text, strlen(text), 0);
    int size = zmq_recv(socket, reply, sizeof reply - 1, 0);
    if (size < 0 || size >= (int) sizeof reply) {
        fprintf(stderr, "no reply to %s\n", text);
        exit(1);
    }
    reply[size] = 0;
    puts(reply);
}

/* Where the value of a field begins in the reply. */
static const char *value_of(const char *name)
{
    char key[80];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *found = strstr(reply, key);
    if (!found) {
        fprintf(stderr, "no %s in %s\n", name, reply);
        exit(1);
    }
    return found + strlen(key);
}

static double number(const char *name)
{
    return strtod(value_of(name), NULL);
}

static void text(const char *name, char *copy, size_t size)
{
    const char *value = value_of(name) + 1;
    snprintf(copy, size, "%.*s", (int) strcspn(value, "\""), value);
}

/* Ask for a row: `who` is the field "model" or "models"; features go as an object or as a list. */
static void predict(void *socket, const char *who, const struct row *row, int by_name)
{
    const char *brackets = by_name ? "{}" : "[]";
    size_t end = snprintf(message, sizeof message,
                          "{\"v\":1,\"op\":\"predict\",\"id\":\"c\",%s,\"features\":%c", who, brackets[0]);
    for (int i = 0; i < row->count; i++) {
        end += snprintf(message + end, sizeof message - end, "%s", i ? "," : "");
        if (by_name)
            end += snprintf(message + end, sizeof message - end, "\"%s\":", row->names[i]);
        end += snprintf(message + end, sizeof message - end, "%s", row->values[i]);
    }
    snprintf(message + end, sizeof message - end, "%c}", brackets[1]);
    ask(socket, message);
}

/* One feature too many, one feature only, a gap where none is allowed, and a model that is not there. */
static void predict_otherwise(void *socket, const char *model, struct row row)
{
    char one[256], two[256];
    snprintf(one, sizeof one, "\"model\":\"%s\"", model);
    snprintf(two, sizeof two, "\"models\":[\"%s\",\"nothing\"]", model);
    predict(socket, two, &row, 1);
    int count = row.count;
    row.names[count] = "extra";
    row.values[count] = "1";
    row.count = count + 1;
    predict(socket, one, &row, 1);
    row.count = 1;
    predict(socket, one, &row, 1);
    row.count = count;
    row.values[0] = "null";
    predict(socket, one, &row, 1);
}

static void report(void *socket, const char *prediction, const char *build)
{
    snprintf(message, sizeof message,
             "{\"v\":1,\"op\":\"outcome\",\"id\":\"o\",\"bot\":\"c\",\"run\":\"1\",\"trade\":\"1\",\"seq\":1,"
             "\"status\":\"closed\",\"final\":true,\"prediction_id\":\"%s\",\"build\":\"%s\","
             "\"pnl\":1.5,\"currency\":\"USD\",\"closed_at\":1742860800000}", prediction, build);
    ask(socket, message);
}

static void print_numbers(const double *numbers, int count)
{
    for (int i = 0; i < count; i++)
        printf("%c%.17g", i ? ',' : '[', numbers[i]);
    puts("]");
}

int main(int argc, char **argv)
{
    static char line[LONGEST];
    static double read[MOST_ROWS];
    char feedback[256], who[256], prediction[64] = "", build[256] = "";
    struct row row = {.count = argc - 3};
    int rows = 0;
    if (row.count < 1 || row.count > MOST_FEATURES)
        return 2;
    for (int i = 0; i < row.count; i++)
        row.names[i] = argv[3 + i];
    void *context = zmq_ctx_new();
    void *dealer = connected(context, ZMQ_DEALER, argv[1]);
    void *request = connected(context, ZMQ_REQ, argv[1]);
    ask(request, "{\"op\":\"hello\",\"id\":\"h\"}");
    text("feedback", feedback, sizeof feedback);
    ask(dealer, "{\"op\":\"models\",\"id\":\"m\"}");
    snprintf(who, sizeof who, "\"model\":\"%s\"", argv[2]);
    for (; rows < MOST_ROWS && fgets(line, sizeof line, stdin); rows++) {
        for (int i = 0; i < row.count; i++)
            row.values[i] = strtok(i ? NULL : line, " \n");
        predict(request, who, &row, 1);
        read[rows] = number("output");
        text("prediction_id", prediction, sizeof prediction);
        text("build", build, sizeof build);
        predict(dealer, who, &row, 0);
    }
    predict_otherwise(dealer, argv[2], row);
    void *recorder = connected(context, ZMQ_DEALER, feedback);
    report(recorder, prediction, build);
    print_numbers(read, rows);
    zmq_close(dealer);
    zmq_close(request);
    zmq_close(recorder);
    zmq_ctx_term(context);
    return 0;
}
