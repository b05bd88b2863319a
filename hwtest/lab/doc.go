// Package lab builds LANs out of Linux network namespaces, for tests and
// demonstrations: hosts, routers with NAT, switches with IGMP and MLD snooping,
// and links with a rate, a delay and losses. Real kernels and real programs
// talk over them; nothing is simulated but the wire itself.
//
//	l := lab.Test(t) // or lab.New in a program
//	wan := l.Switch("wan", lab.SwitchConfig{Prefixes: []string{"198.51.100.0/24"}})
//	lan := l.Switch("lan", lab.SwitchConfig{Prefixes: []string{"10.0.0.0/24"},
//		Gateways: []string{"10.0.0.1"}, Snooping: true, Querier: true})
//	r := l.Router("router")
//	r.Masquerade(r.Join(wan, lab.LinkConfig{}))
//	r.Join(lan, lab.LinkConfig{Addrs: []string{"10.0.0.1/24"}})
//	pc := l.Host("pc")
//	pc.Join(lan, lab.LinkConfig{ToHost: lab.Path{Loss: lab.Loss{Kind: lab.Random, Fraction: 0.02}}})
//	err := l.Up(ctx)
//
// The methods that build (Switch, Host, Router, Join, AddAddr, Route,
// Masquerade) act at once and never fail by themselves: the first fault sticks
// to the Lab, what follows it does nothing, and Up returns it. More may be built
// after Up; call Up again then. Everything else returns its own error.
//
// # What is counted
//
// Three kinds of bytes, never mixed:
//   - link bytes, Link.Counters: whole frames put on the link by its sender
//     (14 bytes of Ethernet header, no FCS and no preamble), lost ones included;
//   - IP bytes, Host.CountIP: packets with their IP header that passed a
//     netfilter hook, filtered by address, protocol, port and link;
//   - payload: what an application read or wrote. The lab does not see it; the
//     program that runs the test counts it.
//
// Frames are at most one MTU long, because segmentation, receive and checksum
// offloads are off unless LinkConfig.Offloads asks for them: with them on, one
// counted "frame" may stand for 64 KiB of TCP and a loss takes all of it.
//
// # How a path is made
//
// Rate alone is a token bucket (TBF) in the kernel. Random and burst loss
// without a seed are nftables rules at the receiving end of the link: cheap, and
// different each time. Delay, a seed, Gilbert–Elliott loss and Wi-Fi need a
// wire: two TAPs with a loop of this process between them. It keeps the
// order of frames, draws losses from the seed (Loss.Pattern tells which), and
// carries several hundred Mbit/s. A wire needs /dev/net/tun, so usually root.
// ARP, IPv6 neighbour discovery, IGMP and MLD are never lost: they are not what
// a test looks at, and they would shift the pattern of a seed.
// The pattern runs over the frames of all flows as they enter the wire; in a new
// flow the first packets may overtake each other while the neighbour's address is
// asked for.
//
// # Rights and lifetime
//
// As root everything works. Without root, Main runs the test binary again in a
// user namespace, where all but wires works; Require says what is missing, and
// is a failure rather than a skip under CI=true. Namespaces have no names and
// live as long as this process holds them, programs started in a host die with
// the thread that started them, and so nothing is left after a crash. Only
// grandchildren that leave their process group can outlive Stop: run foreign
// daemons in the foreground.
//
// # Refused
//
// No shelling out to ip, tc or nft; no change to the namespace the test runs
// in; no wait that hides a link that never comes up (Up fails at its context's
// end).
//
// Start reading at Lab, then Link.
package lab
