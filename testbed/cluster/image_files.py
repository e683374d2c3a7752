"""Config files that the image recipes write into a container's private root."""

from string import Template

NGINX_CONF = Template("""\
# Made by the testbed for this container alone.
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr notice;

events { worker_connections 512; }

http {
    access_log /dev/stdout combined;
    client_body_temp_path /var/cache/nginx/body;
    proxy_temp_path /var/cache/nginx/proxy;
    fastcgi_temp_path /var/cache/nginx/fastcgi;
    uwsgi_temp_path /var/cache/nginx/uwsgi;
    scgi_temp_path /var/cache/nginx/scgi;
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    sendfile on;

    server {
        listen $port default_server;$ipv6
        server_name _;
        root /usr/share/nginx/html;
        index index.html;
$location
    }
}
""")

NGINX_WEB_ROOT_LOCATION = """\
        location / { try_files $uri $uri/ =404; }"""

# Files of the web root are served; `/` and everything else goes to the upstream.
NGINX_UPSTREAM_LOCATION = Template("""\
        location / { try_files $$uri @upstream; }
        location @upstream {
            proxy_pass http://$upstream;
            proxy_connect_timeout 3s;
            proxy_set_header Host $$http_host;
            proxy_set_header X-Real-IP $$remote_addr;
            proxy_set_header X-Forwarded-For $$proxy_add_x_forwarded_for;
        }""")

# No shutdown port, no AJP, no example applications; deployment is fixed, so nothing is scanned for changes.
TOMCAT_SERVER_XML = Template("""\
<?xml version="1.0" encoding="UTF-8"?>
<!-- Made by the testbed for this container alone. -->
<Server port="-1">
  <Service name="Catalina">
    <Connector port="$port" protocol="HTTP/1.1" connectionTimeout="20000" maxThreads="50" minSpareThreads="2"/>
    <Engine name="Catalina" defaultHost="localhost">
      <Host name="localhost" appBase="webapps" autoDeploy="false" deployOnStartup="false" unpackWARs="false">
        <Context path="" docBase="ROOT" reloadable="false" containerSciFilter="websocket">
          <JarScanner scanClassPath="false" scanManifest="false"/>
        </Context>
        <Valve className="org.apache.catalina.valves.AccessLogValve" directory="/dev" prefix="stdout" suffix=""
               rotatable="false" buffered="false" pattern="%a - %u %t &quot;%r&quot; %s %b"/>
      </Host>
    </Engine>
  </Service>
</Server>
""")

# The two servlets of tomcat's own web.xml that the page needs; the page is compiled before the port is opened.
TOMCAT_WEB_XML = """\
<?xml version="1.0" encoding="UTF-8"?>
<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="5.0" metadata-complete="true">
  <servlet>
    <servlet-name>default</servlet-name>
    <servlet-class>org.apache.catalina.servlets.DefaultServlet</servlet-class>
    <load-on-startup>1</load-on-startup>
  </servlet>
  <servlet>
    <servlet-name>jsp</servlet-name>
    <servlet-class>org.apache.jasper.servlet.JspServlet</servlet-class>
    <init-param><param-name>development</param-name><param-value>false</param-value></init-param>
    <init-param><param-name>genStringAsCharArray</param-name><param-value>false</param-value></init-param>
    <load-on-startup>2</load-on-startup>
  </servlet>
  <servlet>
    <servlet-name>index</servlet-name>
    <jsp-file>/index.jsp</jsp-file>
    <load-on-startup>3</load-on-startup>
  </servlet>
  <servlet-mapping><servlet-name>default</servlet-name><url-pattern>/</url-pattern></servlet-mapping>
  <servlet-mapping><servlet-name>jsp</servlet-name><url-pattern>*.jsp</url-pattern></servlet-mapping>
  <servlet-mapping><servlet-name>index</servlet-name><url-pattern>/index.jsp</url-pattern></servlet-mapping>
  <welcome-file-list><welcome-file>index.jsp</welcome-file><welcome-file>index.html</welcome-file></welcome-file-list>
</web-app>
"""

# Debian keeps the compiler for pages outside tomcat's own lib.
TOMCAT_CATALINA_PROPERTIES = """\
common.loader="${catalina.base}/lib/*.jar","${catalina.home}/lib/*.jar","/usr/share/java/eclipse-jdt-core.jar"
server.loader=
shared.loader=
"""

TOMCAT_INDEX_JSP = """\
<%@ page contentType="text/html; charset=UTF-8" session="false" %><!DOCTYPE html>
<html>
<head><title>Tomcat in pod <%= System.getenv("HOSTNAME") %></title></head>
<body>
<h1>It works: this is Tomcat</h1>
<p>server: <%= application.getServerInfo() %></p>
<p>pod: <%= System.getenv("HOSTNAME") %> (<%= request.getLocalAddr() %>:<%= request.getLocalPort() %>)</p>
<p>client: <%= request.getRemoteAddr() %></p>
</body>
</html>
"""

HTTPD_CONF = Template("""\
# Made by the testbed for this container alone.
ServerRoot "$root"
DefaultRuntimeDir /run
PidFile /run/httpd.pid
Mutex sem
ServerName localhost
Listen $port
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
StartServers 1
ThreadsPerChild 8
MaxRequestWorkers 32
MinSpareThreads 4
MaxSpareThreads 16
TypesConfig /etc/mime.types
User www-data
Group www-data
ErrorLog /proc/self/fd/2
LogFormat "%h %l %u %t \\"%r\\" %>s %b" common
CustomLog /proc/self/fd/1 common
DocumentRoot "$root/htdocs"
<Directory "/">
    Require all denied
</Directory>
<Directory "$root/htdocs">
    Require all granted
</Directory>
DirectoryIndex index.html
""")

HTTPD_INDEX = "<html><body><h1>It works!</h1></body></html>\n"
