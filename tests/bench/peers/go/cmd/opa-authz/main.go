// opa-authz is OPA as an ext_authz server: its engine in the process, asked as OPA-Envoy asks it. The input has
// OPA-Envoy's form (the CheckRequest as JSON, `parsed_path`, `parsed_query`, `parsed_body`), the query is
// prepared once, and verified tokens are remembered (the cache `io_jwt`, which OPA leaves off by default). What
// OPA-Envoy does besides for each request (a transaction, metrics, a decision log, spans) is left out, so it
// cannot be faster than this.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"sort"
	"strings"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoy_type "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown/cache"
	"github.com/open-policy-agent/opa/v1/util"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/encoding/protojson"

	"bench/internal/server"
)

const (
	query   = "data.envoy.authz.result"
	caching = `{"inter_query_builtin_value_cache": {"named": {"io_jwt": {"max_num_entries": 10000}}}}`
)

type opa struct {
	auth.UnimplementedAuthorizationServer
	query  rego.PreparedEvalQuery
	values cache.InterQueryValueCache
}

func main() {
	listen := flag.String("listen", "", "address to serve ext_authz on")
	policy := flag.String("policy", "", "Rego file")
	data := flag.String("data", "", "JSON file, `data` of the policy")
	flag.Parse()

	ctx := context.Background()
	rules, err := os.ReadFile(*policy)
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(*data)
	if err != nil {
		log.Fatal(err)
	}
	documents := map[string]any{}
	if err := json.Unmarshal(text, &documents); err != nil {
		log.Fatalf("%s: %v", *data, err)
	}
	prepared, err := rego.New(
		rego.Query(query),
		rego.Module(*policy, string(rules)),
		rego.Store(inmem.NewFromObject(documents)),
	).PrepareForEval(ctx)
	if err != nil {
		log.Fatal(err)
	}
	configuration, err := cache.ParseCachingConfig([]byte(caching))
	if err != nil {
		log.Fatal(err)
	}
	server.Serve(*listen, &opa{query: prepared, values: cache.NewInterQueryValueCache(ctx, configuration)})
}

func (o *opa) Check(ctx context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	input, err := input(request)
	if err != nil {
		return nil, err
	}
	results, err := o.query.Eval(ctx, rego.EvalParsedInput(input), rego.EvalInterQueryBuiltinValueCache(o.values))
	if err != nil {
		return nil, err
	}
	if len(results) != 1 {
		return nil, fmt.Errorf("%s is undefined", query)
	}
	result, isObject := results[0].Expressions[0].Value.(map[string]any)
	if !isObject {
		return nil, fmt.Errorf("%s is not an object", query)
	}
	return response(result), nil
}

func response(result map[string]any) *auth.CheckResponse {
	if allowed, _ := result["allowed"].(bool); !allowed {
		return server.Deny(code.Code_PERMISSION_DENIED, envoy_type.StatusCode_Forbidden)
	}
	var headers []server.Header
	if named, isObject := result["headers"].(map[string]any); isObject {
		for name, value := range named {
			headers = append(headers, server.Header{Name: name, Value: fmt.Sprint(value)})
		}
	}
	sort.Slice(headers, func(i, j int) bool { return headers[i].Name < headers[j].Name })
	return server.Allow(headers)
}

// input is what OPA-Envoy shows to a policy.
func input(request *auth.CheckRequest) (ast.Value, error) {
	encoded, err := protojson.Marshal(request)
	if err != nil {
		return nil, err
	}
	var shown map[string]any
	if err := util.UnmarshalJSON(encoded, &shown); err != nil {
		return nil, err
	}
	target, err := url.Parse(request.GetAttributes().GetRequest().GetHttp().GetPath())
	if err != nil {
		return nil, err
	}
	shown["version"] = map[string]any{"ext_authz": "v3", "encoding": "protojson"}
	shown["parsed_path"] = values(strings.Split(strings.TrimLeft(target.Path, "/"), "/"))
	parameters := map[string]any{}
	for name, all := range target.Query() {
		parameters[name] = values(all)
	}
	shown["parsed_query"] = parameters
	shown["parsed_body"] = nil
	shown["truncated_body"] = false
	return ast.InterfaceToValue(shown)
}

func values(texts []string) []any {
	list := make([]any, len(texts))
	for i, text := range texts {
		list[i] = text
	}
	return list
}
