/*
** l_io.h -- what l_io.c and l_json.c share.
*/
#ifndef GQ_L_IO_H
#define GQ_L_IO_H

#include "bind.h"

void gqL_open_json(lua_State *L);       /* adds json_encode, json_decode, json_array, json_null */

#endif
