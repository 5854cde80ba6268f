// cerbos-adapter stands between Envoy and Cerbos, as thin as it can fairly be: it does what extauthz does around
// its engine (verify the token and remember it, find the route, map claims and path) and asks Cerbos over gRPC.
//
// The request to Cerbos is written, and its answer read, field by field: less work than with generated classes.
package main

import (
	"context"
	"crypto/rsa"
	"flag"
	"log"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoy_type "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"bench/internal/server"
)

const (
	prefix = "/api/expenses/"
	// Long: a machine that stands still for a second is no fault of Cerbos's.
	callTimeout = 10 * time.Second
)

var actions = map[string]string{"GET": "read", "PATCH": "update", "DELETE": "delete"}

type claims struct {
	jwt.RegisteredClaims
	Roles      []string `json:"roles"`
	Region     string   `json:"region"`
	Department string   `json:"dept"`
}

type adapter struct {
	auth.UnimplementedAuthorizationServer
	key    *rsa.PublicKey
	parser *jwt.Parser
	tokens sync.Map // token -> *claims
	cerbos *grpc.ClientConn
}

func main() {
	listen := flag.String("listen", "", "address to serve ext_authz on")
	upstream := flag.String("cerbos", "", "address of Cerbos, gRPC")
	keyFile := flag.String("key", "", "public RSA key of the issuer, PEM")
	issuer := flag.String("issuer", "", "issuer of the tokens")
	audience := flag.String("audience", "", "audience of the tokens")
	flag.Parse()

	pem, err := os.ReadFile(*keyFile)
	if err != nil {
		log.Fatal(err)
	}
	key, err := jwt.ParseRSAPublicKeyFromPEM(pem)
	if err != nil {
		log.Fatal(err)
	}
	connection, err := grpc.NewClient(*upstream,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{})))
	if err != nil {
		log.Fatal(err)
	}
	server.Serve(*listen, &adapter{key: key, cerbos: connection, parser: jwt.NewParser(
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(*issuer), jwt.WithAudience(*audience),
		jwt.WithExpirationRequired())})
}

func (a *adapter) Check(ctx context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	http := request.GetAttributes().GetRequest().GetHttp()
	caller, found := a.caller(http.GetHeaders()["authorization"])
	if !found {
		return server.Deny(code.Code_UNAUTHENTICATED, envoy_type.StatusCode_Unauthorized), nil
	}
	path, query, _ := strings.Cut(http.GetPath(), "?")
	id, found := strings.CutPrefix(path, prefix)
	action, known := actions[http.GetMethod()]
	if !found || !known || id == "" || strings.Contains(id, "/") {
		return server.Deny(code.Code_PERMISSION_DENIED, envoy_type.StatusCode_NotFound), nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := a.ask(ctx, question(caller, id, action, channel(query)))
	if err != nil {
		return nil, err
	}
	if !answer.allowed {
		return server.Deny(code.Code_PERMISSION_DENIED, envoy_type.StatusCode_Forbidden), nil
	}
	return server.Allow([]server.Header{
		{Name: "x-authz-principal", Value: caller.Subject},
		{Name: "x-authz-roles", Value: strings.Join(caller.Roles, ",")},
		{Name: "x-authz-basis", Value: answer.output},
	}), nil
}

// caller verifies a token once and remembers its claims until they expire.
func (a *adapter) caller(authorization string) (*claims, bool) {
	token, found := strings.CutPrefix(authorization, "Bearer ")
	if !found {
		return nil, false
	}
	if remembered, found := a.tokens.Load(token); found {
		known := remembered.(*claims)
		if time.Now().Before(known.ExpiresAt.Time) {
			return known, true
		}
		a.tokens.Delete(token)
		return nil, false
	}
	verified := &claims{}
	_, err := a.parser.ParseWithClaims(token, verified, func(*jwt.Token) (any, error) { return a.key, nil })
	if err != nil {
		return nil, false
	}
	a.tokens.Store(token, verified)
	return verified, true
}

func channel(query string) string {
	values, err := url.ParseQuery(query)
	if err != nil || !values.Has("channel") {
		return "web"
	}
	return values.Get("channel")
}
