-- NUM OP NUM -> the answer of IEEE double arithmetic, as %.17g. See ../README.md.

local function refuse(status, sentence)
  io.stderr:write(sentence, "\n")
  os.exit(status)
end

local function number(text)
  local digits, exponent = text:match("^[+-]?([0-9.]+)(.*)$")
  local plain = digits and (digits:match("^[0-9]+%.?[0-9]*$") or digits:match("^%.[0-9]+$"))
  if #text > 60 or not plain or not (exponent == "" or exponent:match("^[eE][+-]?[0-9]+$")) then
    refuse(64, "NUM is a decimal number like -1.5e3, of at most 60 characters.")
  end
  -- An exponent makes it a float: integers wrap around. tonumber() knows no leading plus.
  local unsigned = text:gsub("^%+", "")
  local value = tonumber(exponent == "" and unsigned .. "e0" or unsigned)
  if value == math.huge or value == -math.huge or (value == 0 and digits:match("[1-9]")) then
    refuse(65, "A number lies outside the range of a double.")
  end
  return value
end

if #arg ~= 3 or not arg[2]:match("^[-+*/]$") then
  refuse(64, "Say it in three arguments: NUM OP NUM, where OP is + - * or /.")
end
local left, operator, right = number(arg[1]), arg[2], number(arg[3])
local answer
if operator == "+" then
  answer = left + right
elseif operator == "-" then
  answer = left - right
elseif operator == "*" then
  answer = left * right
elseif right == 0 then
  refuse(65, "Division by zero.")
else
  answer = left / right
end
if answer == math.huge or answer == -math.huge then
  refuse(65, "The answer lies outside the range of a double.")
end
print(string.format("%.17g", answer == 0 and 0.0 or answer))
