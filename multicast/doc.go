// Package multicast sends objects of the store to many agents at once, and
// receives them: the sockets, the pacing and the decisions around package norm.
//
// On a box the [Desk] hears which objects agents want and lets the [Caster] put
// those on air that several want at once; the [Roster] knows the agents. On an
// agent the [Member] asks the desk over its [Line], pinned to the box's key,
// and the [Catcher] joins the session. What a session leaves open is fetched
// over HTTP: no session waits for its slowest member, and none is believed
// without the proof of each block.
//
// The package refuses to take a key from the network, to join anything that
// the pinned box has not signed, and to cast what is not complete and public.
// Start reading at [Desk.ServeHTTP] and [Caster.Cast] for the box, at
// [Member.Open] and [Catcher.Source] for the agent.
package multicast
