rockspec_format = "3.0"
package = "gqlua"
version = "0.2.0-1"
source = {
  url = "git+file://.",      -- built from a checkout: luarocks make
}
description = {
  summary = "Neural ODEs and SDEs trained with the Gauss-Legendre quadrature adjoint",
  detailed = [[
    An embedded runtime in C for training neural ordinary and stochastic differential equations: dynamics
    written in Lua are traced, differentiated graph to graph and run as compiled programs. Needs OpenBLAS,
    cJSON and Random123's headers.]],
  license = "MIT",
}
supported_platforms = { "linux" }
dependencies = {
  "lua ~> 5.4",
}
external_dependencies = {
  CJSON = { header = "cjson/cJSON.h" },
}
build = {
  type = "make",
  build_target = "gq.so",
  install_pass = false,
  install = {
    lib = { gq = "gq.so" },
  },
}
