package admin

import (
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/cistern-edge/cistern/admin/client"
)

// systemDoors registers what is asked of the appliance with plain handlers: update
// files and logs are no JSON, and an order may take longer than a request.
func (s *Server) systemDoors(a huma.API, mux humago.Mux) {
	words := a.OpenAPI().Components.Schemas
	schema := func(v any) *huma.Schema { return words.Schema(reflect.TypeOf(v), true, "") }
	text := &huma.Schema{Type: huma.TypeString}
	outcome := media("application/json", schema(client.Update{}))
	level := &huma.Schema{Type: huma.TypeString, Enum: []any{}}
	for _, l := range levels {
		level.Enum = append(level.Enum, l)
	}
	least := 1.0
	door(a, mux, huma.Operation{
		Method: http.MethodPost, Path: "/system/order", OperationID: "order-system", Summary: "Have the appliance restart, turn off, reset, install, update or keep a schedule",
		RequestBody: &huma.RequestBody{Required: true, Content: media("application/json", schema(client.SystemOrder{}))},
	}, outcome, s.order)
	door(a, mux, huma.Operation{
		Method: http.MethodPost, Path: "/system/update", OperationID: "update-system", Summary: "Update the appliance with a signed file; it restarts into it",
		RequestBody: &huma.RequestBody{Required: true, Content: media("application/octet-stream", &huma.Schema{Type: huma.TypeString, Format: "binary"})},
	}, outcome, s.update)
	door(a, mux, huma.Operation{
		Method: http.MethodGet, Path: "/system/log", OperationID: "get-system-log", Summary: "The last lines that the appliance and its programs wrote, oldest first",
		Parameters: []*huma.Param{
			{Name: "level", In: "query", Schema: level, Description: "These and worse; without it: all"},
			{Name: "unit", In: "query", Schema: text, Description: "Only what this program wrote: system, cisternd or ssh"},
			{Name: "lines", In: "query", Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: &least}, Description: "Only the last so many; without it: all that are kept"},
			{Name: "download", In: "query", Schema: text, Description: "Whatever it says: a browser keeps the lines as a file"},
		},
	}, media("text/plain", text), s.systemLog)
}

// door registers one plain handler with its description.
func door(a huma.API, mux humago.Mux, op huma.Operation, answer map[string]*huma.MediaType, do http.HandlerFunc) {
	problems := media("application/problem+json", a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[huma.ErrorModel](), true, ""))
	op.Responses = map[string]*huma.Response{"200": {Description: http.StatusText(http.StatusOK), Content: answer}}
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		op.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: problems}
	}
	a.OpenAPI().AddOperation(&op)
	mux.HandleFunc(op.Method+" "+apiPrefix+op.Path, do)
}

func media(kind string, schema *huma.Schema) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{kind: {Schema: schema}}
}
