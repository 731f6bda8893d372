    local gq = require "gq"
    local o = gq.cli({"seed", "json", "quiet", {"width", 8, "width"}}, arg)
    gq.file_write(o.json, gq.json.encode {summary = {loss = 1 / o.width}})