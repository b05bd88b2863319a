// A sender and a receiver of files on libnorm, for tests against it.
//
//   peer send key=value… file…   keys: group port iface node rate segment k parity backoff ackers grtt buffer timeout
//   peer recv key=value…         keys: group port iface node dir count source unicast linger timeout
//
// rate is in bits per second of NORM messages. The sender ends with status 0 when
// every acker has confirmed all files or, without ackers, after the flush; the
// receiver after count files, which it calls what their NORM_INFO says.
//
// It is C++ because normApi.h does not compile as C.

#include <normApi.h>

#include <sys/select.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Options = std::map<std::string, std::string>;

double seconds() {
	timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

[[noreturn]] void fail(const std::string &what) {
	fprintf(stderr, "peer: %s\n", what.c_str());
	exit(1);
}

std::string text(const Options &o, const char *key, const char *fallback) {
	auto i = o.find(key);
	return i == o.end() ? fallback : i->second;
}

double number(const Options &o, const char *key, double fallback) {
	auto i = o.find(key);
	return i == o.end() ? fallback : atof(i->second.c_str());
}

// next waits for an event until the deadline.
bool next(NormInstanceHandle instance, NormEvent *event, double deadline) {
	for (;;) {
		double left = deadline - seconds();
		if (left <= 0) return false;
		int fd = NormGetDescriptor(instance);
		fd_set set;
		FD_ZERO(&set);
		FD_SET(fd, &set);
		timeval wait = {time_t(left), suseconds_t((left - time_t(left)) * 1e6)};
		if (select(fd + 1, &set, nullptr, nullptr, &wait) <= 0) return false;
		if (NormGetNextEvent(instance, event, false)) return true;
	}
}

NormSessionHandle open(NormInstanceHandle instance, const Options &o) {
	std::string group = text(o, "group", ""), iface = text(o, "iface", "");
	NormSessionHandle session = NormCreateSession(instance, group.c_str(), UINT16(number(o, "port", 6003)), NormNodeId(number(o, "node", 1)));
	if (session == NORM_SESSION_INVALID) fail("no session");
	if (!iface.empty() && !NormSetMulticastInterface(session, iface.c_str())) fail("no interface " + iface);
	NormSetTTL(session, 1);
	std::string source = text(o, "source", "");
	if (!source.empty() && !NormSetSSM(session, source.c_str())) fail("no source " + source);
	return session;
}

// enqueue hands a file to the sender. libnorm takes an empty one as data only.
NormObjectHandle enqueue(NormSessionHandle session, const std::string &path) {
	std::string name = path.substr(path.rfind('/') + 1);
	if (std::ifstream(path, std::ios::ate | std::ios::binary).tellg() == 0) {
		static char nothing[1];
		return NormDataEnqueue(session, nothing, 0, name.data(), name.size());
	}
	return NormFileEnqueue(session, path.c_str(), name.data(), name.size());
}

int send(NormInstanceHandle instance, const Options &o, const std::vector<std::string> &files) {
	NormSessionHandle session = open(instance, o);
	NormSetTxRate(session, number(o, "rate", 50e6));
	NormSetGrttEstimate(session, number(o, "grtt", 0.05));
	if (o.count("backoff")) NormSetBackoffFactor(session, number(o, "backoff", 4));
	std::stringstream ackers(text(o, "ackers", ""));
	bool asked = false;
	for (std::string id; std::getline(ackers, id, ','); asked = true) NormAddAckingNode(session, NormNodeId(atoi(id.c_str())));
	NormSetTxCacheBounds(session, 1 << 30, 1, 4096);
	if (!NormStartSender(session, NormSessionId(getpid()), UINT32(number(o, "buffer", 8 << 20)), UINT16(number(o, "segment", 1400)), UINT16(number(o, "k", 64)), UINT16(number(o, "parity", 16))))
		fail("sender does not start");
	NormSetTxSocketBuffer(session, 4 << 20);
	NormObjectHandle last = NORM_OBJECT_INVALID;
	for (auto &f : files)
		if ((last = enqueue(session, f)) == NORM_OBJECT_INVALID) fail("cannot send " + f);
	if (asked) NormSetWatermark(session, last);
	double deadline = seconds() + number(o, "timeout", 60);
	NormEvent event;
	while (next(instance, &event, deadline)) {
		bool done = event.type == NORM_TX_FLUSH_COMPLETED && !asked;
		if (event.type == NORM_TX_WATERMARK_COMPLETED) {
			done = NormGetAckingStatus(session) == NORM_ACK_SUCCESS;
			if (!done) NormResetWatermark(session);
		}
		if (done) {
			NormStopSender(session);
			return 0;
		}
	}
	fprintf(stderr, "peer: not confirmed in time\n");
	return 1;
}

// keep gives a received object the name in its NORM_INFO.
bool keep(NormObjectHandle object, const std::string &dir) {
	char info[8192];
	UINT16 n = NormObjectGetInfo(object, info, sizeof info);
	std::string to = dir + "/" + std::string(info, n);
	if (NormObjectGetType(object) == NORM_OBJECT_DATA) {
		std::ofstream file(to, std::ios::binary);
		if (NormObjectGetSize(object) > 0) file.write(NormDataAccessData(object), NormObjectGetSize(object));
		return bool(file);
	}
	return NormFileRename(object, to.c_str());
}

int recv(NormInstanceHandle instance, const Options &o) {
	std::string dir = text(o, "dir", ".");
	if (!NormSetCacheDirectory(instance, dir.c_str())) fail("no directory " + dir);
	NormSessionHandle session = open(instance, o);
	NormSetRxPortReuse(session, true);
	NormSetDefaultUnicastNack(session, number(o, "unicast", 0) != 0);
	if (!NormStartReceiver(session, 64 << 20)) fail("receiver does not start");
	NormSetRxSocketBuffer(session, 8 << 20);
	int open = int(number(o, "count", 1));
	double deadline = seconds() + number(o, "timeout", 60);
	NormEvent event;
	while (next(instance, &event, deadline)) {
		if (event.type == NORM_RX_OBJECT_ABORTED) fprintf(stderr, "peer: a file was aborted\n");
		if (event.type != NORM_RX_OBJECT_COMPLETED) continue;
		if (!keep(event.object, dir)) fail("cannot keep a file");
		if (--open == 0) deadline = seconds() + number(o, "linger", 0.7);  // to confirm
	}
	return open > 0;
}

}  // namespace

int main(int argc, char **argv) {
	Options options;
	std::vector<std::string> files;
	for (int i = 2; i < argc; i++) {
		const char *equals = strchr(argv[i], '=');
		if (equals && argv[i][0] != '/' && argv[i][0] != '.')
			options[std::string(argv[i], size_t(equals - argv[i]))] = equals + 1;
		else
			files.push_back(argv[i]);
	}
	if (argc < 2) fail("send or recv?");
	NormInstanceHandle instance = NormCreateInstance();
	int status = strcmp(argv[1], "send") == 0 ? send(instance, options, files) : recv(instance, options);
	NormDestroyInstance(instance);
	return status;
}
