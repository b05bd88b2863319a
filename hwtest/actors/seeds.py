"""A swarm of seeds in one process: a libtorrent session for each address.

Arguments: a JSON object with dir, torrents, addrs, port, rate (bytes a second
of each session) and control (host:port). GET / on control answers with the
piece bytes that all sessions have sent, GET /INFOHASH with those of one torrent.
"""

import http.server
import json
import sys

import libtorrent as lt


def session(addr, arg):
    s = lt.session({
        "listen_interfaces": "%s:%d" % (addr, arg["port"]),
        "outgoing_interfaces": addr,
        "upload_rate_limit": arg["rate"],
        "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        # One NAT stands before all clients.
        "allow_multiple_connections_per_ip": True,
        "enable_outgoing_utp": False,
        "alert_mask": 0, "aio_threads": 1, "hashing_threads": 1,
    })
    for path in arg["torrents"]:
        p = lt.add_torrent_params()
        p.ti = lt.torrent_info(path)
        p.save_path = arg["dir"]
        p.flags = lt.torrent_flags.seed_mode | lt.torrent_flags.upload_mode
        s.add_torrent(p)
    return s


def main():
    arg = json.loads(sys.argv[1])
    sessions = [session(addr, arg) for addr in arg["addrs"]]

    class Control(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            of = [t for s in sessions for t in s.get_torrents() if self.path in ("/", "/%s" % t.info_hash())]
            sent = sum(t.status().total_payload_upload for t in of)
            body = b"%d" % sent
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    host, port = arg["control"].rsplit(":", 1)
    http.server.HTTPServer((host, int(port)), Control).serve_forever()


main()
