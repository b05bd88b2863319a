"""Both sides of swarm.loopback with libtorrent.

Arguments: a JSON object. With "addrs" it seeds "torrent" from "dir", a session
for each address, and prints "ready". Without, it downloads into "dir" from
"peers" and prints the seconds that it took, by the clock and of the processor.
"""

import json
import sys
import time

import libtorrent as lt

arg = json.loads(sys.argv[1])


def session(addr, port):
    return lt.session({
        "listen_interfaces": "%s:%d" % (addr, port), "outgoing_interfaces": addr,
        "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        "enable_incoming_utp": False, "enable_outgoing_utp": False,
        "allow_multiple_connections_per_ip": True, "alert_mask": 0,
    })


def params(flags):
    p = lt.add_torrent_params()
    p.ti = lt.torrent_info(arg["torrent"])
    p.save_path = arg["dir"]
    p.flags = flags
    return p


if "addrs" in arg:
    sessions = [session(a, arg["port"]) for a in arg["addrs"]]
    for s in sessions:
        s.add_torrent(params(lt.torrent_flags.seed_mode | lt.torrent_flags.upload_mode))
    time.sleep(0.5)
    print("ready", flush=True)
    time.sleep(3600)
else:
    s = session("127.0.0.1", arg["port"])
    began, cpu = time.monotonic(), time.process_time()
    torrent = s.add_torrent(params(lt.torrent_flags.default_flags & ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)))
    for host in arg["peers"]:
        torrent.connect_peer((host, arg["seedport"]))
    while not torrent.status().is_seeding:
        time.sleep(0.02)
    print(time.monotonic() - began, time.process_time() - cpu)
