// Package norm is the NACK-oriented reliable multicast protocol, RFC 5740, as
// a pair of engines without sockets, goroutines or clock.
//
// A [Sender] turns objects (random-access contents) into packets and answers
// repair requests; a [Receiver] turns packets into writes on a [Sink] and
// makes the requests. Both are driven in the same way: what came from the
// network goes to Handle, what is due comes out of Poll, Wake says when to
// poll next, and Events says what happened meanwhile. The caller owns sockets
// and pacing and passes the time in. An engine is not safe for concurrent use:
// one goroutine drives it.
//
// The wire format is that of NRL's libnorm for file objects: fec_id 5
// (Reed-Solomon over GF(2^8), RFC 5510); fec_id 129 is understood when
// receiving. Interleaving and Auth are private header extensions and off unless
// the Config says otherwise. The package refuses stream objects, fec_id 2, and anything that
// would make it allocate before it has checked a limit of its Config.
//
// Start reading at [Sender.Poll] and [Receiver.Handle]; the messages are in
// header.go, data.go, command.go and feedback.go; TFMCC is in sender_tfmcc.go.
package norm
