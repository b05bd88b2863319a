package shell

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Why a line is not done.
var (
	ErrLine      = errors.New("this line cannot be read")
	ErrForbidden = errors.New("this cannot be done by SSH")
)

// Bounds of a line.
const (
	maxWords = 256
	maxText  = 32 << 10
)

// Split makes words of a line. Blanks divide them; "…" and '…' hold them
// together, and \ takes the next character as it is, but inside '…'. Nothing is
// looked up or put in its place: $, *, ;, |, < and the rest are letters.
func Split(line string) (words []string, err error) {
	if len(line) > maxText || strings.IndexByte(line, 0) >= 0 || !utf8.ValidString(line) {
		return nil, fmt.Errorf("%w: it is too long, or no text", ErrLine)
	}
	var word strings.Builder
	begun, escaped, quote := false, false, rune(0)
	for _, r := range line {
		switch {
		case escaped:
			escaped = false
			word.WriteRune(r)
		case r == '\\' && quote != '\'':
			begun, escaped = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			begun, quote = true, r
		case quote == 0 && (r == ' ' || r == '\t' || r == '\r' || r == '\n'):
			if begun {
				words = append(words, word.String())
				word.Reset()
			}
			begun = false
		default:
			begun = true
			word.WriteRune(r)
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("%w: a quote has no end", ErrLine)
	}
	if begun {
		words = append(words, word.String())
	}
	if len(words) > maxWords {
		return nil, fmt.Errorf("%w: it has more than %d words", ErrLine, maxWords)
	}
	return words, nil
}

// commands are those of cistern that are about this box and not about the machine
// that somebody sits at.
var commands = [...]string{
	"status", "add", "pin", "unpin", "evict", "purge", "scrub", "cast", "explain", "snippets", "agents", "update", "system", "hwtest", "--help", "--version",
}

// elsewhere are the flags that lead to another box, or to files of this one.
var elsewhere = [...]string{"--box", "--token", "--data", "--here", "--dir", "--erase", "--send"}

// allowed gives the words for the program, or says why not.
func allowed(words []string) ([]string, error) {
	if words[0] == "logs" {
		words = append([]string{"system", "log"}, words[1:]...)
	}
	if words[0] == "help" {
		words = append(slices.Clone(words[1:]), "--help")
	}
	if !slices.Contains(commands[:], words[0]) {
		return nil, fmt.Errorf("%w: there is no command %q here; help lists those that there are", ErrForbidden, words[0])
	}
	for _, w := range words {
		for _, flag := range elsewhere {
			if w == flag || strings.HasPrefix(w, flag+"=") {
				return nil, fmt.Errorf("%w: %s", ErrForbidden, flag)
			}
		}
	}
	return words, nil
}
