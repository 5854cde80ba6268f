# The policy of tests/bench/service.py for OPA: the same rules, token, route, mapping and headers.
package envoy.authz

default result := {"allowed": false}

http := input.attributes.request.http

token := substring(http.headers.authorization, 7, -1) if startswith(http.headers.authorization, "Bearer ")

claims := payload if {
	[valid, _, payload] := io.jwt.decode_verify(token, {"cert": data.jwks, "iss": data.issuer, "aud": data.audience})
	valid
}

action := {"GET": "read", "PATCH": "update", "DELETE": "delete"}[http.method]

id := segment if {
	["api", "expenses", segment] = input.parsed_path
	segment != ""
}

default channel := "web"

channel := input.parsed_query.channel[0]

resource := {"ownerId": claims.sub, "region": claims.region, "channel": channel, "status": "OPEN"}

roles contains role if some role in claims.roles

derived contains "owner" if {
	"user" in roles
	resource.ownerId == claims.sub
}

derived contains "regional_manager" if {
	"manager" in roles
	resource.region == claims.region
}

admins if "admin" in roles

owners if {
	action in ["read", "update"]
	"owner" in derived
}

managers if {
	action == "read"
	"regional_manager" in derived
	resource.channel in ["web", "app"]
	claims.dept != "AUDIT"
}

closed if {
	action == "update"
	resource.status == "CLOSED"
}

allow if admins

allow if owners

allow if managers

default basis := ""

basis := concat("", ["owner of ", id]) if owners

result := {
	"allowed": true,
	"headers": {
		"x-authz-principal": claims.sub,
		"x-authz-roles": concat(",", claims.roles),
		"x-authz-basis": basis,
	},
} if {
	id
	action
	allow
	not closed
}
