package journal

import (
	"fmt"
	"time"
)

// noticed is the shortest time that is worth a word.
const noticed = 100 * time.Millisecond

// Where says in a sentence where the time of a request went; "" if it took none
// to speak of.
func (e *Entry) Where() string {
	if e.Took < noticed {
		return ""
	}
	answered := max(e.Answered, e.Asked)
	first := e.First
	if first == 0 { // the client left before
		first = e.Took
	}
	type step struct {
		took time.Duration
		what string
	}
	steps := []step{{e.Took - first, "to send the rest: client, network or origin could not do more"}}
	if e.Answered == 0 {
		steps = append(steps, step{first, e.unasked()})
	} else {
		steps = append(steps,
			step{e.Asked, "until the origin was asked: another request was under way, or the origin had enough of them"},
			step{answered - e.Asked, "for the origin to begin its answer"},
			step{first - answered, "from there to the first byte for the client"})
	}
	most := steps[0]
	for _, s := range steps[1:] {
		if s.took > most.took {
			most = s
		}
	}
	return fmt.Sprintf("%v of %v went %s", most.took.Round(time.Millisecond), e.Took.Round(time.Millisecond), most.what)
}

// unasked says what an answer waits for that no origin was asked for.
func (e *Entry) unasked() string {
	switch {
	case e.Collapsed:
		return "waiting for the answer to another request, which this one shares"
	case e.Hit:
		return "to read what is stored, or waiting for what was still on its way"
	case e.Fwd != "":
		return "trying to reach the origin, in vain"
	}
	return "until the first byte"
}
